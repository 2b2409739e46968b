"""Every command: a mistake costs one sentence and status 2, and leaves nothing that is in the way.

A row of the tables is a command line and a part of the sentence that it gets.
"""

import importlib
import json
import logging
import os
import shlex
import shutil
import tarfile

import pytest
import torch

from tests.data.videos import encode_video, moving_picture
from tests.export.runs import write_run
from vmm.cli import main as vmm
from vmm.export.formats import export, load_parts
from vmm.search.index import Index, Settings

S2 = "fit -c recipes/stage2_vtt.yaml --data.init_args.make_demo=false"
S1 = "fit -c recipes/stage1_mvp.yaml"
CLASSES = "fit -c recipes/classification.yaml --data.init_args.make_demo=false"


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """What the commands of the tables name, as right and as wrong things: a folder."""
    folder = tmp_path_factory.mktemp("things")
    write_run(folder / "run", seed=0)
    export(load_parts(folder / "run", "last", "mit", ()), folder / "encoder", "folder")
    Index.create(folder / "index", Settings("f" * 64, str(folder / "encoder"), 8, 2.0, 1.0, None))
    (folder / "empty").mkdir()
    (folder / "empty.tar").touch()
    (folder / "text.txt").write_text("hello\n")
    (folder / "text.yaml").write_text("just text\n")
    (folder / "tab.yaml").write_text("trainer:\n\tmax_epochs: 3\n")
    (folder / "syntax.yaml").write_text("a: [1,\n b: }\n")
    (folder / "key.yaml").write_text("trainer:\n  max_epoch: 3\n")
    (folder / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    (folder / "broken.json").write_text("{")
    (folder / "list.json").write_text("[]")
    (folder / "captions.json").write_text(json.dumps([{"video": "a.mp4", "caption": "a dog"}]))
    (folder / "junk.ckpt").write_bytes(bytes(range(256)))
    (folder / "empty.ckpt").touch()
    weights = {"model.temperature": torch.tensor(0.1)}
    torch.save({"state_dict": weights}, folder / "weights.ckpt")
    with tarfile.open(folder / "media.tar", "w") as tar:
        tar.add(folder / "text.txt", "text.txt")
    (folder / "media").mkdir()
    (folder / "media" / "a.mp4").write_bytes(encode_video(moving_picture(4)))
    zero = folder / "zero.ckpt"
    zero.mkdir()
    (zero / "zero_to_fp32.py").touch()
    return folder


@pytest.fixture
def told(things, root, tmp_path, monkeypatch, capsys):
    """Run a command where nothing is, and give what it said; it must be one sentence."""
    os.symlink(root / "recipes", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setattr(logging, "raiseExceptions", False)  # an earlier command's handler is stale

    def told(line, *more):
        words = shlex.split(line.format(t=things))
        name, *options = words
        if "." in name:
            run = importlib.import_module(name).main
        else:
            run, options = vmm, words
        try:
            status = run([*options, *more])
        except SystemExit as stop:  # a mistake in the options alone
            status = stop.code
        captured = capsys.readouterr()
        errors = [line for line in captured.err.splitlines() if "error: " in line]
        assert status == 2 and len(errors) == 1, captured.err
        assert captured.err.rstrip().endswith(errors[0]), captured.err
        assert "Traceback" not in captured.err
        return errors[0]

    yield told
    left = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert not {path for path in left if "recipes" not in path.parts}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"{S2} --model.init_args.lora.rank=0", "lora.rank is 0; set it from 1 to 256"),
        (f"{S2} --model.init_args.lora.targets='('", "lora.targets '(' is no regular expression"),
        (f"{S2} --model.init_args.layer_decay=2", "layer_decay is 2.0; set it to from 0 to 1"),
        (
            f"{S2} -c recipes/overlays/sigmoid.yaml --model.init_args.label_smoothing=0.1",
            "label_smoothing 0.1 is for vtc_kind softmax",
        ),
        ("fit", "there is no recipe; name one, e.g. -c stage2_vtt.yaml"),
        ("fit nowhere.yaml", "the recipe nowhere.yaml does not exist"),
        ("fit -c nowhere.yaml", "the recipe nowhere.yaml does not exist"),
        ("fit stage2_vt.yaml", "did you mean stage2_vtt.yaml?"),
        ("fit -c {t}/empty", "is a folder"),
        ("fit -c {t}/run", "run is a folder; name"),
        ("fit {t}/run", "run is a folder; name"),
        ("fit -c {t}/tab.yaml", "tab.yaml is no valid YAML, line 2, column 1: a tab"),
        ("fit -c {t}/syntax.yaml", "syntax.yaml is no valid YAML, line 2"),
        ("fit -c {t}/text.yaml", "holds no settings"),
        (
            "fit -c recipes/stage2_vtt.yaml --data vmm.data.datamodules.WebVideoData "
            "--data.init_args.make_demo=true",
            "has it, or leave it out",
        ),
        ("fit --config={t}/bytes.yaml", "is no text"),
        (
            f"{S2} -c {{t}}/key.yaml",
            "no setting trainer.max_epoch; did you mean 'trainer.max_epochs'?",
        ),
        (f"{S2} --trainer.max_epoch 3", "did you mean 'trainer.max_epochs'?"),
        (f"{S2} --batch-size 3", "did you mean 'data.init_args.batch_size'?"),
        (f"{S2} --data.init_args.batchsize=3", "data.init_args.batchsize; did you mean 'batch_siz"),
        (
            f"{S2} --model.init_args.video_encoder.init_args.dept=3",
            "there is no setting model.init_args.video_encoder.init_args.dept; did you mean 'dept",
        ),
        (f"{S2} --model.init_args.optimizer.init_args.beta=1", "did you mean 'betas'?"),
        (f"{S2} --trainer.max_epochs=nan", "trainer.max_epochs: 'nan' is not a whole number"),
        (f"{S2} --data.init_args.batch_size=many", "batch_size: 'many' is not a whole number"),
        (f"{S2} --data.init_args.fit=fill", "'fill' is not one of 'squash', 'crop'"),
        (f"{S2} --model.init_args.optimizer.init_args.lr=nan", "lr: 'nan' is not a number"),
        (f"{S2} --model.init_args.optimizer.class_path=torch.optim.No", "has no attribute 'No'"),
        (f"{S2} --model=NoTask", "model: 'NoTask' is not a class"),
        (f"{S2} --model.init_args.video_encoder=encoders/no.yaml", "no file encoders/no.yaml"),
        (f"{S2} --data.init_args.batch_size=0", "batch_size 0"),
        (f"{S2} --data.init_args.steps_per_epoch=0", "steps_per_epoch 0"),
        (f"{S2} --data.init_args.num_workers=100000", "num_workers 100000"),
        (f"{S2} --data.init_args.train_videos=''", "train_videos is empty (is a variable of"),
        (f"{S2} --data.init_args.val_videos=[]", "val_videos is empty"),
        (f"{S2} --model.init_args.init_from=''", "init_from is empty; null leaves it out"),
        (f"{S2} --model=AnswerTask", "model.init_args needs answers"),
        (f"{CLASSES} --data.init_args.auto_augment=rand-m99", "auto_augment 'rand-m99' is no poli"),
        (f"{CLASSES} --model.init_args.num_classes=0", "num_classes is 0; set it to from 1 to"),
        (f"{CLASSES} --model.init_args.mixing.prob=2", "prob and switch_prob from 0 to 1"),
        (f"{CLASSES} --data.init_args.content=captions", "set data.init_args.content to labels"),
        ("fit -c recipes/overlays/debug.yaml", "name a whole one first, e.g. -c recipes/stage2"),
        ("fit -c recipes/encoders/videomamba_demo.yaml", "no recipe here names a model"),
        ("-c recipes/stage2_vtt.yaml fit", "the command comes first, e.g. `vmm fit -c RECIPE`"),
        (
            f"{S2} --data.init_args.train_videos='{{{{a: {{{{shards: x.tar, weight: -2}}}}}}}}'",
            "weight -2.0 of the corpus 'x.tar' is not positive",
        ),
        (f"{S2} --model.init_args.video_encoder.init_args.patch_size=7", "is not a multiple of pa"),
        (f"{S2} --model.init_args.temperature=0", "temperature is 0.0; set it to 0.001 or more"),
        (f"{S2} --model.init_args.proj_dim=0", "proj_dim is 0; set it to 1 or more"),
        (f"{S2} --model.init_args.mlm_probability=2", "mlm_probability is 2.0; set it to from 0"),
        (f"{S2} --model.init_args.warmup_steps=-5", "warmup_steps is -5; set it to 0 or more"),
        (
            f"{S2} --model.init_args.loss_weights.vtc=0 --model.init_args.loss_weights.vtm=0 "
            "--model.init_args.loss_weights.mlm=0",
            "nothing to learn",
        ),
    ],
)
def test_recipes_and_settings(told, line, said):
    assert said in told(line)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--trainer.max_epochs=-1", "which must be known: set trainer.max_epochs or trainer.max"),
        ("--trainer.max_epochs=null --trainer.max_time=00:00:01:00", "also beside max_time"),
        ("--trainer.max_epochs=-2", "`max_epochs` must be"),
        ("--trainer.max_epochs=0", "trainer.max_epochs is 0, so there is nothing to do"),
        ("--trainer.max_steps=0", "trainer.max_steps is 0"),
        ("--trainer.max_time=00:00:00:00", "trainer.max_time is 0"),
        ("--trainer.max_time=soon", "not a valid duration"),
        ("--trainer.limit_train_batches=0", "trainer.limit_train_batches is 0"),
        ("--trainer.accumulate_grad_batches=0", "accumulate_grad_batches is 0"),
        ("--trainer.val_check_interval=0", "val_check_interval is 0"),
        ("--trainer.check_val_every_n_epoch=0", "check_val_every_n_epoch is 0"),
        ("--last_checkpoint.every_n_train_steps=0", "every_n_train_steps is 0; set it to 1"),
        ("--trainer.gradient_clip_val=-1", "gradient_clip_val is below 0"),
        (
            "--trainer.val_check_interval=10000",
            "is 10000 and an epoch has 2 batches, so there would",
        ),
        ("--trainer.accelerator=tpu", "trainer.accelerator auto"),
        ("--trainer.accelerator=fast", "invalid accelerator name"),
        ("--trainer.devices=-1 --trainer.accelerator=cpu", "should be an int > 0"),
        (
            "--trainer.strategy=nope",
            "would not train as one process does; take -c recipes/overlays/ddp",
        ),
        ("--trainer.logger=false", "leave the logger on"),
        ("--trainer.logger=true", "trainer.logger is True; a run's folder and its metrics.csv are"),
        ("--trainer.logger=TensorBoardLogger", "as also_log_to (-c recipes/overlays/tensorboard"),
        (
            "--trainer.logger.init_args.save_dir={t}/text.txt",
            "text.txt/stage2_vtt: Not a directory",
        ),
        ("--checkpoint.mode=highest", "`mode` can be"),
        (
            "--early_stopping.monitor=val/t2v_recal_1",
            "early_stopping.monitor is 'val/t2v_recal_1', which this run does not log; did you "
            "mean 'val/t2v_recall_1'?",
        ),
        ("--lr_finder.steps=3", "lr_finder.steps is 3; set it to 20 or more"),
        ("--lr_finder.steps=30 --resume", "lr_finder.steps is for a fit that begins"),
        ("--trainer.callbacks+=LearningRateFinder", "with -c recipes/overlays/find_lr.yaml"),
        ("--trainer.callbacks+=BatchSizeFinder", "try sizes with data.init_args.batch_size"),
        ("--trainer.barebones=true", "trainer.barebones switches off the logger"),
        ("--trainer.default_root_dir=/x/y", "default_root_dir is /x/y, and a run goes where its"),
        ("--trainer.log_every_n_steps=-1", "log_every_n_steps is -1; set it to 0 or more"),
        ("--trainer.num_sanity_val_steps=-2", "num_sanity_val_steps is -2; set it to -1 or more"),
        ("--trainer.min_epochs=-1", "min_epochs is -1; set it to 0 or more"),
        ("--trainer.min_steps=-1", "min_steps is -1; set it to 0 or more"),
        ("--trainer.fast_dev_run=-1", "do not work here: fast_dev_run=-1 is not a valid"),
        ("--trainer.limit_train_batches=1.5", "limit_train_batches, it has to be in [0.0, 1.0]"),
        ("--trainer.limit_train_batches=0.01", "0.01 * 2 < 1"),
        ("--trainer.limit_val_batches=-3", "for limit_val_batches, it has to be in"),
        ("--trainer.overfit_batches=-1", "invalid value -1 for overfit_batches"),
        ("--trainer.val_check_interval=soon", "Expected 'DD:HH:MM:SS'"),
        ("--trainer.check_val_every_n_epoch=null", "`val_check_interval` should be an integer"),
        ("--trainer.gradient_clip_algorithm=max", "Allowed algorithms: ['value', 'norm']"),
        ("--trainer.precision=transformer-engine", "pip install -U 'transformer_engine"),
        ("--trainer.precision=fp8", "'fp8' is not a whole number or one of"),
        ("--trainer.profiler=nope", "it can only be one of ['simple', 'advanced', 'pytorch'"),
        ("--trainer.plugins=nope", "'nope' is not a class or a list"),
        ("--trainer.deterministic=maybe", "'maybe' is not true or false or one of 'warn'"),
        ("--trainer.reload_dataloaders_every_n_epochs=-1", "should be an int >= 0, got -1"),
        ("--trainer.num_nodes=0", "must be a positive integer, but got 0"),
        ("--trainer.num_nodes=2", "start it on each machine by srun or torchrun"),
        ("--trainer.max_steps=-5", "must be a non-negative integer or -1"),
        ("--checkpoint.save_top_k=-2", "Must be >= -1"),
        ("--checkpoint.save_top_k=2", "No quantity for top_k to track"),
        ("--seed_everything=-1", "-1 is not in bounds"),
        ("--compile.backend=inductr", "compile.backend is 'inductr'; set it to inductor"),
        ("--ema.decay=1", "ema.decay is 1.0; set it between 0 and 1"),
        ("--ema.decay=0.9 --ema.update_every_n_steps=0", "update_every_n_steps is 0"),
        ("--ema.decay=0.9 --trainer.precision=bf16-true", "are rounded away; use bf16-mixed"),
        ("--ema.decay=0.9 --checkpoint.save_weights_only=true", "would be in no checkpoint"),
        ("--checkpoint.monitor=R@1 --checkpoint.mode=max", "checkpoint.monitor is 'R@1', which"),
        ("--checkpoint.monitor=train/align", "There are also"),  # a term without weight
        (
            "--checkpoint.monitor=val/t2v_recall_1",
            "checkpoint.mode is min, which takes the worst val/t2v_recall_1 for the best one",
        ),
        ("--early_stopping.monitor=train/loss", "set it to min"),
        (
            "--early_stopping.monitor=val/t2v_recall_1 --data.init_args.val_videos=null",
            "and nothing is validated",
        ),
        (
            "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor=val/los",
            "'val/los', which this run does not log",
        ),
        ("--ckpt_path=nowhere.ckpt", "no weight file nowhere.ckpt"),
        ("--ckpt_path=last", "the newest run beside this one's folder"),
        ("--ckpt_path=''", "--ckpt_path is empty"),
        ("--ckpt_path={t}/media.tar", "is damaged or no weight file; download or save it again."),
        ("--ckpt_path={t}/empty", "is a folder; name the weight file in it"),
        ("--ckpt_path={t}/zero.ckpt", "zero_to_fp32.py"),
        ("--ckpt_path={t}/junk.ckpt", "is damaged or no weight file"),
        ("--ckpt_path={t}/empty.ckpt", "is empty"),
        ("--ckpt_path={t}/text.txt", "is damaged or no weight file"),
        ("--ckpt_path={t}/weights.ckpt", "holds weights and not the state of a run"),
        ("--ckpt_path={t}/encoder/model.safetensors", "use them with --model.init_args.init_from"),
        ("--model.init_args.init_from={t}/text.txt", "is damaged or no weight file"),
        ("--model.init_args.init_from={t}/zero.ckpt", "no checkpoint in"),
        ("--data.init_args.train_videos={t}/empty", "matches no file"),
        ("--data.init_args.train_videos={t}/text.txt", "no video with a caption in 1 shard"),
        ("--data.init_args.train_videos=$NO_PLACE/x.tar", "NO_PLACE, which is not set"),
        ("--data.init_args.std=[0,1,1]", "std (0.0, 1.0, 1.0) must be"),
        ("--data.init_args.quarantine={t}/text.txt/q.jsonl", "text.txt: File exists"),
        ("--data.init_args.batch_size=1000", "fewer than one step takes"),
    ],
)
def test_training(told, demo_shards, option, said):
    shards = [*demo_shards.options(images=False), "--data.init_args.train_images=null"]
    debug = "-c recipes/overlays/debug.yaml"
    assert said in told(f"{S2} {debug} {' '.join(shards)} {option}")


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for what this machine has")
@pytest.mark.parametrize("option", ["--trainer.accelerator=gpu", "--trainer.accelerator=cuda"])
def test_a_gpu_that_is_not_there(told, option):
    assert "(trainer.accelerator auto with trainer.devices 1 always does)" in told(f"{S2} {option}")


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("", "would use random weights; give --ckpt_path RUN"),
        ("--ckpt_path=nowhere", "no weight file nowhere"),
        ("--ckpt_path=best", "the newest run beside this one's folder"),
    ],
)
def test_evaluation_without_weights(told, command, option, said):
    assert said in told(f"{command} -c recipes/stage2_vtt.yaml {option}")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("validate -c recipes/stage2_vtt.yaml --trainer.limit_val_batches=0", "limit_val_batches"),
        ("import", "the following arguments are required: checkpoint, out"),
        ("import {t}/nowhere.pth out", "no weight file"),
        ("import {t}/run out", "is a folder; name the weight file in it"),
        ("import {t}/zero.ckpt out", "zero_to_fp32.py"),
        ("import {t}/text.txt out", "is damaged or no weight file"),
        ("import {t}/weights.ckpt out", "is of no published family"),
        ("import {t}/weights.ckpt {t}/run", "is not an empty folder"),
        ("import {t}/weights.ckpt {t}/text.txt/deep", "Not a directory"),
        ("import {t}/weights.ckpt out --numframes 8", "did you mean --num-frames?"),
        ("import {t}/weights.ckpt out --num-frames few", "'few' is no whole number of 1 or more"),
        ("export {t}/run", "the following arguments are required: out"),
        ("export {t}/run --ot x", "unrecognized arguments: --ot"),
        ("export {t}/empty out", "is not a run directory"),
        ("export {t}/text.txt out", "is in no run directory"),
        ("export {t}/run {t}/encoder", "is not an empty folder"),
        ("export {t}/run {t}/text.txt/deep", "Not a directory"),
        ("export {t}/run out --checkpoint nope", "there is no checkpoint file nope"),
        ("export {t}/run out --checkpoint {t}/zero.ckpt", "zero_to_fp32.py"),
        ("export {t}/run out --checkpoint {t}/weights.ckpt", "does not fit"),
        ("export {t}/run out --results {t}/broken.json", "cannot be read as a result"),
        ("export {t}/run out --num-frames 8", "--format folder has none"),
        ("export {t}/run out --format pt2 --num-frames 0", "'0' is no whole number of 1 or more"),
        ("export-upstream {t}/empty x.pth", "is not a run directory"),
        ("export-upstream {t}/run {t}/empty", "empty is there already; name a new file"),
        ("export-upstream {t}/run {t}/weights.ckpt", "weights.ckpt is there already"),
        ("export-upstream {t}/run no/x.pth", "make it first"),
        ("export-upstream {t}/run x.pth --dtype bfloat", "did you mean bfloat16?"),
        ("doctor --jsn", "did you mean --json?"),
        ("summary", "there is no recipe; name one, e.g. -c stage2_vtt.yaml"),
        ("summary {t}/empty", "is not a run directory"),
        ("summary {t}/nowhere", "is not a run directory"),
        ("summary -c nowhere.yaml", "the recipe nowhere.yaml does not exist"),
        ("summary ''", "an argument is empty"),
        ("summary -c recipes/stage2_vtt.yaml --jsn", "unrecognized arguments: --jsn"),
        (
            "summary -c recipes/self_distillation.yaml "
            "--model.init_args.teacher.init_args.embed_dim=256",
            "the teacher is 256 wide and the student 128",
        ),
        (
            "summary -c recipes/stage1_mvp.yaml --model.init_args.teacher.init_args.num_layers=2",
            "1 taps to align but the teacher gives 2 layers",
        ),
    ],
)
def test_weights(told, line, said):
    assert said in told(line)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("encode {t}/media -o new", "say --encoder"),
        ("encode {t}/media -o new --encoder {t}/run", "is a run directory"),
        ("encode {t}/media -o new --encoder nowhere", "there is no folder nowhere"),
        ("encode '' -o new --encoder {t}/encoder", "an argument is empty"),
        ("encode {t}/media -o new --encoder=", "an argument is empty"),
        ("encode nowhere.mp4 -o new --encoder {t}/encoder", "there is no nowhere.mp4"),
        ("encode {t}/empty -o new --encoder {t}/encoder", "no video in"),
        ("encode {t}/text.txt -o new --encoder {t}/encoder", "is no video that can be read"),
        ("encode {t}/media -o {t}/text.txt --encoder {t}/encoder", "is there and no index"),
        ("encode {t}/media -o {t}/text.txt/deep --encoder {t}/encoder", "Not a directory"),
        ("encode {t}/media -o new --encoder {t}/encoder --window inf", "'inf' is no finite number"),
        ("encode {t}/media -o new --encoder {t}/encoder --stride 100", "leaves gaps"),
        ("encode {t}/media -o new --encoder {t}/encoder --batch-size 0", "'0' is no whole number"),
        ("encode {t}/media -o new --encoder {t}/encoder --shard ²/3", "must be I/N"),
        ("encode {t}/media -o new --encodr x", "did you mean --encoder?"),
        ("index nowhere", "has no index.json"),
        ("index {t}/encoder --compct", "did you mean --compact?"),
        ("search {t}/index", "say what to look for"),
        ("search {t}/index ' '", "say what to look for"),
        ("search {t}/index x --rank-by matching", "is for what --rerank N looks at; give both"),
        ("search {t}/index x --rank-by itm --rerank 3", "invalid choice: 'itm'"),
        ("search {t}/index x --top 0", "'0' is no whole number of 1 or more"),
        ("search {t}/index a dog", "unrecognized arguments: dog"),
        ("search {t}/run x", "has no index.json"),
        ("search {t}/index x --encoder {t}/run", "is a run directory"),
        ("app {t}/index --port 99999", "'99999' is no whole number of 1 to 65535"),
        ("app {t}/index --max-upload-mb -1", "'-1' is no whole number of 1 or more"),
    ],
)
def test_search(told, line, said):
    assert said in told(line)


RUN = "--run {t}/run --out {t}/results"
SHARDS = "--shards {t}/empty.tar --num-workers 0"
SET = "--annotations {t}/captions.json --media {t}/media"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("eval retrieval", "one of the arguments --shards --dataset is required"),
        (f"eval retrieval {SHARDS}", "give --run or --model"),
        (f"eval retrieval --run {{t}}/empty {SHARDS}", "is not a run directory"),
        (f"eval retrieval --run {{t}}/encoder {SHARDS}", "is not a run directory"),
        (f"eval retrieval {RUN} --shards gone.tar", "matches no file"),
        (f"eval retrieval {RUN} {SHARDS} --checkpoint {{t}}/zero.ckpt", "zero_to_fp32.py"),
        (f"eval retrieval {RUN} {SHARDS} --device gpu", "--device 'gpu' cannot be used here"),
        (f"eval retrieval {RUN} {SHARDS} --device cuda:99", "--device 'cuda:99' cannot be used"),
        (f"eval retrieval {RUN} {SHARDS} --device meta", "--device 'meta' cannot be used here"),
        (f"eval retrieval {RUN} {SHARDS} --batch-size 0", "'0' is no whole number of 1 or more"),
        (f"eval retrieval {RUN} {SHARDS} --num-workers -1", "'-1' is no whole number of 0 to 1024"),
        (f"eval retrieval {RUN} {SHARDS} --num-frames 0", "'0' is no whole number of 1 or more"),
        (f"eval retrieval {RUN} {SHARDS} --frame-ordr x", "did you mean --frame-order?"),
        (f"eval retrieval {RUN} --dataset captoins {SET}", "did you mean captions?"),
        (f"eval retrieval {RUN} --dataset captions", "--dataset needs --annotations and --media"),
        ("eval retrieval --run {t}/run --shards {t}/empty.tar", "no video with a caption"),
        (
            f"eval retrieval --run {{t}}/run --dataset captions {SET} --out {{t}}/text.txt",
            "text.txt is a file; name a folder",
        ),
        ("eval retrieval --model nope --shards {t}/empty.tar", "'nope' is no model"),
        ("eval match-weight", "the following arguments are required: --run"),
        ("eval match-weight --rum {t}/run", "unrecognized arguments: --rum; did you mean --run?"),
        ("eval match-weight --run {t}/empty", "is not a run directory"),
        ("eval match-weight --run {t}/run", "names no data.init_args.val_videos to choose"),
        ("eval match-weight --run {t}/run --shards gone.tar", "matches no file"),
        ("eval classification --run {t}/run --shards x.tar --crops 0", "'0' is no whole number"),
        (f"eval long-video-qa {RUN} --dataset nextqa {SET} --fps 0", "'0' is not above 0"),
        (f"eval long-video-qa {RUN} --dataset nextq {SET}", "did you mean nextqa?"),
        (f"eval grounding {RUN} --dataset charades {SET}", "did you mean charades-sta?"),
        (
            f"eval grounding {RUN} --dataset moments {SET} --fps 1 --num-frames 4",
            "give either --nu",
        ),
        (
            "eval open-qa --run {t}/run --shards {t}/empty.tar",
            "was not trained to answer questions",
        ),
        (
            "eval probe --run {t}/run --shards {t}/empty.tar",
            "give train_shards: a probe learns from",
        ),
        (
            "eval probe --run {t}/run --shards {t}/empty.tar --train-shards {t}/empty.tar",
            "to train on and to test on",
        ),
        (
            "eval probe --run {t}/run --shards {t}/empty.tar --train-shards {t}/media.tar",
            "no video with a",
        ),
        ("eval compare nowhere nowhere", "cannot be read as a result"),
        ("eval compare {t}/list.json {t}/list.json", "is no result of this version"),
        ("eval lint {t}/text.txt --dataset nope --annotations x", "there is no test set 'nope'"),
        ("eval lint x --dataset captions --annotations x --t2v nan", "'nan' is no finite number"),
        ("eval lint x --dataset captions --annotations x --v2t 900", "'900' is not between 0 and"),
        ("eval report --out {t}/x.html", "there is nothing to report"),
        ("eval report --out {t}/x.html --run nope", "'nope' is not NAME=PATH"),
        ("eval.demo --quik", "did you mean --quick?"),
        ("eval.demo_qa --quick", "there is no runs/demo/stage2 to start from"),
    ],
)
def test_evaluation(told, line, said):
    assert said in told(line)


SHARDED = "shards make {t}/captions.json {t}/media"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("shards make nowhere {t}/media -o out", "nowhere is not a file"),
        ("shards make {t}/captions.json nowhere -o out", "nowhere is not a folder"),
        ("shards make {t}/captions.json {t}/empty -o out", "there is no video in"),
        ("shards make {t}/list.json {t}/media -o out", "cannot tell whose annotations"),
        (f"{SHARDED} -o {{t}}/text.txt", "text.txt: File exists"),
        (f"{SHARDED} -o {{t}}/text.txt/deep", "deep: Not a directory"),
        (f"{SHARDED} -o out --workers -1", "'-1' is no whole number of 0 to 1024"),
        (f"{SHARDED} -o out --samples-per-shard 0", "--samples-per-shard is 0"),
        (f"{SHARDED} -o out --layout mp4 --fps nan", "--fps nan"),
        (f"{SHARDED} -o out --layout mp5", "did you mean mp4?"),
        (f"{SHARDED} -o out --shard-range 1:0", "--shard-range is 1:0"),
        ("shards inspect nowhere -o out", "matches no file"),
        ("shards inspect {t}/empty -o out", "none is in this folder; `vmm shards make` makes"),
        ("shards inspect $NO_PLACE/x.tar -o out", "NO_PLACE, which is not set"),
        (
            "shards inspect {t}/empty.tar -o out --tokenizer {t}/empty",
            "has neither tokenizer.json nor vocab.txt; name a folder with one",
        ),
        ("shards inspect {t}/empty.tar -o {t}/text.txt --workers 0", "File exists"),
        ("shards inspect {t}/empty.tar -o /proc --workers 0", "error: /proc/"),
        ("shards inspect {t}/empty.tar -o out --pictures -1", "'-1' is no whole number"),
        ("data_prep.synthesize", "the following arguments are required: --out"),
        ("data_prep.synthesize --out out --train 0", "--train is 0; give a positive number"),
        ("data_prep.synthesize --out {t}/media", "give another --out, or --overwrite"),
        ("data_prep.synthesize --out out --trian 8", "did you mean --train?"),
        ("data_prep.long_videos --out out --train -1", "--train is -1; give a positive number"),
    ],
)
def test_data_preparation(told, line, said):
    assert said in told(line)


@pytest.mark.slow
def test_a_checkpoint_of_another_stage_or_size(told, demo_shards, tmp_path, capsys, things):
    """And what was right about it can be used."""
    shards = [*demo_shards.options(images=False), "--data.init_args.train_images=null"]
    common = f"-c recipes/overlays/debug.yaml --trainer.limit_val_batches=0 {' '.join(shards)}"
    runs = things / "made"
    name = f"--trainer.logger.init_args.save_dir={runs} --trainer.logger.init_args.version"
    stage1, stage2 = runs / "stage1_mvp" / "one", runs / "stage2_vtt" / "two"
    for line in (f"{S1} {common} {name}=one", f"{S2} {common} {name}=two"):
        assert vmm(shlex.split(line)) == 0
    capsys.readouterr()
    other = told(f"{S2} {common} --ckpt_path={stage1}")
    assert "the checkpoint is of another stage or of another model: model.temperature" in other
    size = told(f"{S2} {common} --ckpt_path={stage2} --model.init_args.proj_dim=32")
    assert "model.vision_proj.weight has shape (64, 128), wanted (32, 128)" in size
    validated = common.replace("--trainer.limit_val_batches=0", "")
    for options in (common, validated):
        ended = told(f"{S2} {options} --ckpt_path={stage2}")
        assert "the checkpoint is of step 2, where this run ends" in ended
    metrics = (stage2 / "metrics.csv").read_bytes()
    assert "holds a run already" in told(f"{S2} {common} {name}=two")
    assert (stage2 / "metrics.csv").read_bytes() == metrics
    validate = f"validate -c recipes/stage2_vtt.yaml {common} --trainer.limit_val_batches=1"
    untrained = told(f"{validate} --model.init_args.init_from={stage1}")
    assert "has no itm_head, temperature, text_encoder" in untrained
    assert "nothing to test" in told(
        f"test -c recipes/stage1_mvp.yaml {common} --ckpt_path={stage1}"
    )
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)


@pytest.mark.parametrize(
    ("command", "option", "kept"),
    [
        ("fit", "--trainer.fast_dev_run=true", set()),
        (
            "fit",
            "--trainer.enable_checkpointing=false",
            {"config.yaml", "metrics.csv", "run.json", ".lock", "report.html"},
        ),
        ("predict", "--trainer.fast_dev_run=1", set()),
        ("validate", "--trainer.logger=false", set()),
    ],
)
def test_what_is_switched_off_is_not_written(
    trained, demo_shards, root, tmp_path, monkeypatch, command, option, kept
):
    os.symlink(root / "recipes", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    given = [] if command == "fit" else [f"--ckpt_path={trained}"]
    words = f"{command} -c recipes/stage2_vtt.yaml -c recipes/overlays/debug.yaml {option}"
    shards = [*demo_shards.options(images=False), "--data.init_args.train_images=null"]
    assert vmm([*words.split(), *shards, *given]) == 0
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert files - {path.name for path in (root / "recipes").rglob("*")} == kept


@pytest.fixture(scope="module")
def trained(root, demo_shards, tmp_path_factory):
    """A run directory of two steps."""
    folder = tmp_path_factory.mktemp("trained")
    words = f"{S2} -c recipes/overlays/debug.yaml --trainer.limit_val_batches=0"
    shards = [*demo_shards.options(images=False), "--data.init_args.train_images=null"]
    logger = f"--trainer.logger.init_args.save_dir={folder}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert vmm([*words.split(), *shards, logger, "--trainer.logger.init_args.version=a"]) == 0
    return folder / "stage2_vtt" / "a"


def test_a_wrapped_checkpoint_is_used(things, tmp_path):
    """Names as torch.compile, DeepSpeed and DataParallel leave them."""
    from vmm.runs import load_run

    run = things / "run"
    plain = load_run(run, "last").model.state_dict()
    state = torch.load(run / "checkpoints" / "last.ckpt")["state_dict"]
    for wrapper in ("_orig_mod.{}", "_forward_module.{}", "module.{}", "model._orig_mod.{}"):
        names = {key: wrapper.format(key.removeprefix("model.")) for key in state}
        file = tmp_path / "wrapped.ckpt"
        torch.save({"state_dict": {names[key]: value for key, value in state.items()}}, file)
        loaded = load_run(run, str(file)).model.state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in plain.items())
