"""A tiny file in the official layout of every data set, and what must be read from it.

Written by hand after the data sets' own descriptions; no row is anybody's.
"""

import json
import pickle
import sqlite3
from types import MappingProxyType
from typing import NamedTuple


class Example(NamedTuple):
    dataset: str
    files: dict
    """File name -> text, bytes, or what is dumped as JSON. The first is the one to read."""
    media: dict
    """Media file that a folder of this set has -> key of the item that it belongs to."""
    items: list
    """(key, captions) in order."""
    options: dict = MappingProxyType({})
    metadata: dict = MappingProxyType({})
    """Some of the first item's metadata."""
    told: bool = True
    """Whether the file tells whose it is."""

    def write(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            if isinstance(content, str):
                content = content.encode()
            elif not isinstance(content, bytes):
                content = json.dumps(content, ensure_ascii=False).encode()
            (folder / name).write_bytes(content)
        return folder / next(iter(self.files))

    def read_options(self, folder):
        return {k: folder / v if k == "ids" else v for k, v in self.options.items()}


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def sqlite(folder_free_name, *rows):
    connection = sqlite3.connect(":memory:")
    connection.execute(f"CREATE TABLE annos (id INTEGER PRIMARY KEY, {folder_free_name}, caption)")
    connection.executemany("INSERT INTO annos VALUES (?, ?, ?)", rows)
    connection.commit()
    return connection.serialize()


def karpathy(name, split, *raw, **more):
    sentences = [{"tokens": text.split(), "raw": text, "imgid": 0, "sentid": 0} for text in raw]
    return {"filename": name, "split": split, "imgid": 0, "sentids": [0], "sentences": sentences,
            **more}  # fmt: skip


MSRVTT = {
    "info": {"year": "2016"},
    "videos": [
        {"category": 9, "url": "https://x/?v=a", "video_id": "video0", "start time": 137.72,
         "end time": 149.44, "split": "train", "id": 0},
        {"category": 3, "url": "https://x/?v=b", "video_id": "video7", "start time": 1,
         "end time": 2, "split": "test", "id": 7},
    ],
    "sentences": [
        {"caption": "a car is shown", "video_id": "video0", "sen_id": 0},
        {"caption": "a cat sits", "video_id": "video7", "sen_id": 1},
        {"caption": " a man drives ", "video_id": "video0", "sen_id": 2},
    ],
}  # fmt: skip
FROZEN = {"annotations": [{"image_id": "video9", "caption": "one"},
                          {"image_id": "video8", "caption": "two"},
                          {"image_id": "video9", "caption": "three"}]}  # fmt: skip
DIDEMO = [
    {"num_segments": 6, "description": "a dog barks", "dl_link": "x", "times": [[0, 1], [1, 1]],
     "video": "12@N00_1_aa.mov", "annotation_id": 5},
    {"num_segments": 6, "description": "then it runs", "dl_link": "x", "times": [[2, 3]],
     "video": "12@N00_1_aa.mp4", "annotation_id": 6},
    {"num_segments": 5, "description": "a boat", "dl_link": "x", "times": [[0, 0]],
     "video": "13@N00_2_bb.m4v", "annotation_id": 7},
]  # fmt: skip
SSV2 = [
    {"id": "78687", "label": "holding potato next to vicks vaporub bottle",
     "template": "Holding [something] next to [something]",
     "placeholders": ["potato", "vicks vaporub bottle"]},
    {"id": "42326", "label": "spinning cube", "template": "Spinning [something]",
     "placeholders": ["cube"]},
]  # fmt: skip
SSV2_LABELS = {"Spinning something": "3", "Holding something next to something": "41"}
QA = {"answer": "couch", "category_id": 14, "id": 158581, "question": "what sits there?",
      "video_id": 6513}  # fmt: skip

EXAMPLES = {
    "vindlu json": Example(
        "captions",
        {"msrvtt_ret_train9k.json": [
            {"video": "a/vidéo 1.mp4", "caption": "hé one"},
            {"video": "video2.mp4", "caption": ["two", "  ", "zwei "]},
            {"video": "a/vidéo 1.mp4", "caption": "one again"},
        ]},
        {"a/vidéo 1.mp4": "a/vidéo 1.mp4", "video2.mp4": "video2.mp4"},
        [("a/vidéo 1.mp4", ["hé one", "one again"]), ("video2.mp4", ["two", "zwei"])],
    ),
    "vindlu sqlite": Example(
        "captions",
        {"cc3m_train.sqlite.db": sqlite("image", (1, "x/1.jpg", "one"), (2, "x/2.jpg", "two"))},
        {"x/1.jpg": "x/1.jpg", "x/2.jpg": "x/2.jpg"},
        [("x/1.jpg", ["one"]), ("x/2.jpg", ["two"])],
    ),
    "vindlu paragraph": Example(
        "activitynet",
        {"anet_ret_val_1.json": [{"image": "v_a.mp4", "caption": ["First.", "Second."]}]},
        {"v_a.mp4": "v_a.mp4"},
        [("v_a.mp4", ["First. Second."])],
        told=False,
    ),
    "folder csv": Example(
        "captions",
        {"list.csv": '\ufefffile,caption,start,end,split\r\nb.mp4,"one, two",0,0.2,train\r\n'
                     "b.mp4,later,0.2,0.4,test\r\nc.mp4,whole,,,test\r\n"},
        {"b.mp4": "b.mp4_0.0_0.2", "c.mp4": "c.mp4"},
        [("b.mp4_0.0_0.2", ["one, two"]), ("b.mp4_0.2_0.4", ["later"]), ("c.mp4", ["whole"])],
        metadata={"split": "train"},
    ),
    "folder csv of fine-tuning": Example(
        "captions",
        {"metadata.csv": "File Name,Text,start_time,End-Time,title\nclips/b.mp4,one,0,0.2,T\n"},
        {"b.mp4": "clips/b.mp4_0.0_0.2"},
        [("clips/b.mp4_0.0_0.2", ["one"])],
        metadata={"title": "T"},
    ),
    "lists in cells": Example(
        "captions",
        {"msrvtt_hub.csv": "video_id,Caption\nv1,\"['it is one', 'two']\"\nv2,[3] not a list\n"},
        {"v1.mp4": "v1", "v2.mp4": "v2"},
        [("v1", ["it is one", "two"]), ("v2", ["[3] not a list"])],
    ),
    "class table": Example(
        "class-table",
        {"classes.csv": "path,label\na.mp4,run\nb.mp4,jump\nc.mp4,run\n"},
        {"a.mp4": "a.mp4", "b.mp4": "b.mp4", "c.mp4": "c.mp4"},
        [("a.mp4", ["run"]), ("b.mp4", ["jump"]), ("c.mp4", ["run"])],
        metadata={"label": 1, "class": "run"},
    ),
    "msrvtt": Example(
        "msrvtt", {"MSRVTT_data.json": MSRVTT},
        {"TrainValVideo/video0.mp4": "video0", "TestVideo/video7.mp4": "video7"},
        [("video0", ["a car is shown", "a man drives"]), ("video7", ["a cat sits"])],
        metadata={"split": "train", "category": 9, "source_start": 137.72, "source_end": 149.44},
    ),
    "msrvtt 9k": Example(
        "msrvtt", {"MSRVTT_data.json": MSRVTT, "MSRVTT_train.9k.csv": "video_id\nvideo0\n"},
        {"video0.mp4": "video0"},
        [("video0", ["a car is shown", "a man drives"])],
        {"ids": "MSRVTT_train.9k.csv"},
    ),
    "msrvtt 1k-A": Example(
        "msrvtt",
        {"MSRVTT_JSFUSION_test.csv": "key,vid_key,video_id,sentence\n"
                                     "ret0,msr9770,video9770,a person is connecting\n"
                                     "ret1,msr9771,video9771,a girl\n"},
        {"video9770.mp4": "video9770", "video9771.mp4": "video9771"},
        [("video9770", ["a person is connecting"]), ("video9771", ["a girl"])],
        metadata={"key": "ret0", "vid_key": "msr9770", "split": "test"},
    ),
    "msrvtt frozen": Example(
        "msrvtt",
        {"MSR_VTT.json": FROZEN, "jsfusion_val_caption_idx.pkl": pickle.dumps({"video9": 1})},
        {"video9.mp4": "video9"},
        [("video9", ["three"])],
        {"ids": "jsfusion_val_caption_idx.pkl"},
    ),
    "msvd": Example(
        "msvd",
        {"raw-captions.pkl": pickle.dumps({"-4w_0_5": [["a", "bird"], ["it", "sings"]],
                                           "zz_1_2": [["x"]]}, protocol=2),
         "test_list.txt": "-4w_0_5\n"},
        {"-4w_0_5.avi": "-4w_0_5"},
        [("-4w_0_5", ["a bird", "it sings"])],
        {"ids": "test_list.txt"},
    ),
    "didemo": Example(
        "didemo", {"test_data.json": DIDEMO},
        {"12@N00_1_aa.mp4": "12@N00_1_aa", "13@N00_2_bb.mp4": "13@N00_2_bb"},
        [("12@N00_1_aa", ["a dog barks then it runs"]), ("13@N00_2_bb", ["a boat"])],
    ),
    "didemo apart": Example(
        "didemo", {"test_data.json": DIDEMO},
        {"12@N00_1_aa.mp4": "12@N00_1_aa", "13@N00_2_bb.mp4": "13@N00_2_bb"},
        [("12@N00_1_aa", ["a dog barks", "then it runs"]), ("13@N00_2_bb", ["a boat"])],
        {"paragraph": False},
    ),
    "activitynet": Example(
        "activitynet",
        {"val_1.json": {"v_uqiMw7tQ1Cc": {"duration": 55.1, "timestamps": [[0.2, 9], [8, 55]],
                                          "sentences": ["A man.", " He jumps."]},
                        "v_bXdq2zI1Ms0": {"duration": 5, "timestamps": [[0, 5]],
                                          "sentences": ["Snow."]}}},
        {"v_uqiMw7tQ1Cc.mp4": "v_uqiMw7tQ1Cc", "bXdq2zI1Ms0.mkv": "v_bXdq2zI1Ms0"},
        [("v_uqiMw7tQ1Cc", ["A man. He jumps."]), ("v_bXdq2zI1Ms0", ["Snow."])],
        metadata={"duration": 55.1, "timestamps": [[0.2, 9], [8, 55]]},
    ),
    "lsmdc": Example(
        "lsmdc",
        {"LSMDC16_annos_training.csv":
         '1_A_00.03.07.170-00.03.09.675\t00.03.07\t00.03.09\t00.03.06\t00.03.10\tSOMEONE "runs"\n'
         "1_A_00.04.07.170-00.04.09.675\t0\t0\t0\t0\tA street.\n"
         '1_A_00.03.07.170-00.03.09.675\t00.03.07\t00.03.09\t00.03.06\t00.03.10\t"Stop\n'},
        {"1_A/1_A_00.03.07.170-00.03.09.675.avi": "1_A_00.03.07.170-00.03.09.675",
         "1_A/1_A_00.04.07.170-00.04.09.675.avi": "1_A_00.04.07.170-00.04.09.675"},
        [("1_A_00.03.07.170-00.03.09.675", ['SOMEONE "runs"', '"Stop']),
         ("1_A_00.04.07.170-00.04.09.675", ["A street."])],
        metadata={"start_aligned": "00.03.07", "end_extracted": "00.03.10"},
    ),
    "vatex": Example(
        "vatex",
        {"vatex_training_v1.0.json": [{"videoID": "Ptf_2VRj-V0_000122_000132",
                                       "enCap": ["A woman.", "Someone."], "chCap": ["一位女士"]}]},
        {"Ptf_2VRj-V0_000122_000132.mp4": "Ptf_2VRj-V0_000122_000132"},
        [("Ptf_2VRj-V0_000122_000132", ["A woman.", "Someone."])],
        metadata={"captions_zh": ["一位女士"]},
    ),
    "flickr30k": Example(
        "flickr30k",
        {"dataset_flickr30k.json": {"images": [karpathy("1.jpg", "train", "Two men.", "A bush."),
                                               karpathy("2.jpg", "test", "Cooks.")],
                                    "dataset": "flickr30k"}},
        {"2.jpg": "2.jpg"},
        [("2.jpg", ["Cooks."])],
        {"split": "test"}, {"split": "test"},
    ),
    "coco": Example(
        "coco",
        {"dataset_coco.json": {"images": [
            karpathy("v_1.jpg", "restval", "Bikes.", filepath="val2014", cocoid=1),
            karpathy("v_2.jpg", "test", "A kitchen.", filepath="val2014", cocoid=2),
            karpathy("t_3.jpg", "train", "A pizza.", filepath="train2014", cocoid=3),
        ], "dataset": "coco"}},
        {"val2014/v_1.jpg": "v_1.jpg", "train2014/t_3.jpg": "t_3.jpg"},
        [("v_1.jpg", ["Bikes."]), ("t_3.jpg", ["A pizza."])],
        {"split": "train+restval"}, {"cocoid": 1},
    ),
    "webvid": Example(
        "webvid",
        {"results_2M_val.csv": "videoid,contentUrl,duration,page_dir,name\n"
                               '21179416,https://x/p.mp4,PT11S,006001_006050,"Still, life"\n'},
        {"videos/006001_006050/21179416.mp4": "21179416"},
        [("21179416", ["Still, life"])],
        metadata={"page_dir": "006001_006050"},
    ),
    "kinetics": Example(
        "kinetics",
        {"kinetics_val.csv": "label,youtube_id,time_start,time_end,split,is_cc\n"
                             "air drumming,-3B32lodo2M,59,69,val,0\n"
                             '"skiing (not slalom or crosscountry)",--TBx-Spzis,148,158,val,0\n'},
        {"air drumming/-3B32lodo2M_000059_000069.mp4": "-3B32lodo2M_000059_000069",
         "skiing/--TBx-Spzis_000148_000158.mp4": "--TBx-Spzis_000148_000158"},
        [("-3B32lodo2M_000059_000069", ["air drumming"]),
         ("--TBx-Spzis_000148_000158", ["skiing (not slalom or crosscountry)"])],
        metadata={"split": "val", "youtube_id": "-3B32lodo2M", "class": "air drumming"},
    ),
    "ssv2": Example(
        "ssv2",
        {"something-something-v2-validation.json": SSV2,
         "something-something-v2-labels.json": SSV2_LABELS},
        {"78687.webm": "78687", "42326.webm": "42326"},
        [("78687", ["holding potato next to vicks vaporub bottle"]), ("42326", ["spinning cube"])],
        metadata={"label": 41, "template": "Holding something next to something"},
    ),
    "ssv2 template": Example(
        "ssv2-template", {"something-something-v2-validation.json": SSV2},
        {"78687.webm": "78687", "42326.webm": "42326"},
        [("78687", ["Holding something next to something"]), ("42326", ["Spinning something"])],
        told=False,
    ),
    "ssv1": Example(
        "ssv2",
        {"something-something-v1-train.csv": "100218;Something falling\n24413;Folding, twice\n",
         "something-something-v1-labels.csv": "Folding, twice\nSomething falling\n"},
        {"100218.webm": "100218", "24413.webm": "24413"},
        [("100218", ["Something falling"]), ("24413", ["Folding, twice"])],
        metadata={"label": 1},
    ),
    "coin": Example(
        "coin",
        {"COIN.json": {"database": {
            "fR4PcbJJQ9A": {"duration": 113.8, "class": "PutOnHairExtensions", "recipe_type": 5,
                            "video_url": "x", "start": 11.0, "end": 99.0, "subset": "training",
                            "annotation": [{"id": "1", "segment": [1, 2], "label": "comb"}]},
            "aa": {"duration": 9, "class": "MakeRJ45Cable", "recipe_type": 6, "video_url": "x",
                   "start": 1, "end": 2, "subset": "testing", "annotation": []}}}},
        {"5/fR4PcbJJQ9A.mp4": "fR4PcbJJQ9A", "6/aa.mp4": "aa"},
        [("fR4PcbJJQ9A", ["put on hair extensions"]), ("aa", ["make rj 45 cable"])],
        metadata={"label": 5, "split": "train", "task_start": 11.0, "duration": 113.8},
    ),
    "breakfast": Example(
        "breakfast",
        {"breakfast_test.csv": "file_name, duration, action, class_id\n"
                               "P03/cam01/P03_cereals.avi, 31.5, cereals, 0\n"
                               "P03/cam02/P03_cereals.avi, 31.5, cereals, 0\n"},
        {"P03/cam01/P03_cereals.avi": "P03/cam01/P03_cereals.avi",
         "P03/cam02/P03_cereals.avi": "P03/cam02/P03_cereals.avi"},
        [("P03/cam01/P03_cereals.avi", ["cereals"]), ("P03/cam02/P03_cereals.avi", ["cereals"])],
        metadata={"label": 0, "duration": 31.5},
    ),
    "lvu": Example(
        "lvu",
        {"test.csv": "class_id class_name youtube_id imdb_id\n"
                     "2 Ron_Howard FLwEk5B8Xp0 tt0112384\n"},
        {"FLwEk5B8Xp0.mp4": "FLwEk5B8Xp0"},
        [("FLwEk5B8Xp0", ["Ron Howard"])],
        metadata={"label": 2, "imdb_id": "tt0112384"},
    ),
    "lvu number": Example(
        "lvu",
        {"test.csv": "like_ratio youtube_id imdb_id\n9.25 FLwEk5B8Xp0 tt0112384\n"},
        {"FLwEk5B8Xp0.mp4": "FLwEk5B8Xp0"},
        [("FLwEk5B8Xp0", ["9.25"])],
        metadata={"target": 9.25},
    ),
    "labelled list": Example(
        "labelled-list", {"val.csv": "x/abc.mp4 3 61.5\nx/d e.mp4 4 60\n".replace("d e", "de")},
        {"x/abc.mp4": "x/abc.mp4", "x/de.mp4": "x/de.mp4"},
        [("x/abc.mp4", ["3"]), ("x/de.mp4", ["4"])],
        metadata={"label": 3, "duration": 61.5},
    ),
    "questions": Example(
        "questions",
        {"my-questions.json": [{"question_id": "q1", "video": "é 7.mp4", "question": "What?",
                                "options": ["a", "b"], "answer": "b", "question_type": "what",
                                "duration": 12, "statements": ["it is a", "it is b"]}]},
        {"é 7.mp4": "q1"},
        [("q1", ["What?"])],
        metadata={"options": ["a", "b"], "answer": 1, "question_type": "what", "duration": 12,
                  "statements": ["it is a", "it is b"]},
    ),
    "msrvtt-mc": Example(
        "msrvtt-mc",
        {"msrvtt_mc_test.json": [{"video": "video7.mp4", "caption": ["a", "b", "c", "d", "e"],
                                  "answer": 3}]},
        {"video7.mp4": "video7.mp4_0"},
        [("video7.mp4_0", ["d"])],
        metadata={"options": ["a", "b", "c", "d", "e"], "answer": 3, "question": ""},
    ),
    "msrvtt-mc clipbert": Example(
        "msrvtt-mc",
        {"mc.jsonl": lines({"qid": 11, "clip_name": "video7", "title": "b", "answer": 1,
                            "options": ["a", "b", "c", "d", "e"]})},
        {"video7.mp4": "11"},
        [("11", ["b"])],
        metadata={"options": ["a", "b", "c", "d", "e"], "answer": 1},
    ),
    "msrvtt-qa": Example(
        "msrvtt-qa", {"val_qa.json": [QA]}, {"video6513.mp4": "158581"},
        [("158581", ["what sits there?"])],
        metadata={"answer": "couch", "question": "what sits there?"},
    ),
    "msrvtt-qa clipbert": Example(
        "msrvtt-qa",
        {"msrvtt_qa.jsonl": lines({"answer": "dog", "question": "what barks?",
                                   "video_id": "video1", "answer_type": "what"},
                                  {"answer": "two", "question": "how many?", "video_id": "video1",
                                   "answer_type": "how"})},
        {"video1.mp4": "video1_0"},
        [("video1_0", ["what barks?"]), ("video1_1", ["how many?"])],
        metadata={"answer": "dog", "question_type": "what"},
    ),
    "msvd-qa": Example(
        "msvd-qa",
        {"val_qa.json": [{"answer": "man", "id": 30933, "question": "who runs?", "video_id": 1}],
         "youtube_mapping.txt": "-4w_0_5 vid1\nzz_1_2 vid2\n"},
        {"-4w_0_5.avi": "30933"},
        [("30933", ["who runs?"])],
        metadata={"answer": "man"}, told=False,
    ),
    "activitynet-qa": Example(
        "activitynet-qa",
        {"test_q.json": [{"video_name": "1QIUV7WYKXg", "question": "is it a ball",
                          "question_id": "v_1QIUV7WYKXg_3"}],
         "test_a.json": [{"answer": "yes", "type": 3, "question_id": "v_1QIUV7WYKXg_3"}]},
        {"v_1QIUV7WYKXg.mp4": "v_1QIUV7WYKXg_3"},
        [("v_1QIUV7WYKXg_3", ["is it a ball"])],
        metadata={"answer": "yes", "question_type": "3"},
    ),
    "nextqa": Example(
        "nextqa",
        {"val.csv": "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"
                    "4010069381,369,640,480,how do they play,0,6,CH,roll,tap,strum,hit,pat\n",
         "map_vid_vidorID.json": {"4010069381": "1164/4010069381"}},
        {"NExTVideo/1164/4010069381.mp4": "4010069381_6"},
        [("4010069381_6", ["how do they play"])],
        metadata={"options": ["roll", "tap", "strum", "hit", "pat"], "answer": 0,
                  "question_type": "CH"},
    ),
    "egoschema": Example(
        "egoschema",
        {"questions.json": [
            {"q_uid": u, "google_drive_id": "x", "question": f"what does {u} do?",
             **{f"option {i}": f"{u}{i}" for i in range(5)}} for u in ("aa", "bb")],
         "subset_answers.json": {"bb": 4}},
        {"aa.mp4": "aa", "bb.mp4": "bb"},
        [("aa", ["what does aa do?"]), ("bb", ["what does bb do?"])],
        metadata={"answer": None, "split": "hidden",
                  "options": ["aa0", "aa1", "aa2", "aa3", "aa4"]},
    ),
    "egoschema subset": Example(
        "egoschema",
        {"questions.json": [
            {"q_uid": u, "google_drive_id": "x", "question": f"what does {u} do?",
             **{f"option {i}": f"{u}{i}" for i in range(5)}} for u in ("aa", "bb")],
         "subset_answers.json": {"bb": 4}},
        {"bb.mp4": "bb"},
        [("bb", ["what does bb do?"])],
        {"split": "subset"}, {"answer": 4, "split": "subset"},
    ),
    "mlvu": Example(
        "mlvu",
        {"1_plotQA.json": [{"video": "movie101_66.mp4", "duration": 480, "question": "What colour?",
                            "candidates": ["Yellow", "Red", "Blue", "Green"], "answer": "Blue",
                            "question_type": "plotQA"}]},
        {"1_plotQA/movie101_66.mp4": "1_plotQA_0"},
        [("1_plotQA_0", ["What colour?"])],
        metadata={"answer": 2, "question_type": "plotQA", "duration": 480},
    ),
    "mlvu generation": Example(
        "mlvu",
        {"9_summary.json": [{"video": "217.mp4", "duration": 480.0, "question": "Summarise.",
                             "answer": "It starts.", "question_type": "summary"}]},
        {"summary/217.mp4": "9_summary_0"},
        [("9_summary_0", ["Summarise."])],
        metadata={"answer": "It starts."},
    ),
    "longvideobench": Example(
        "longvideobench",
        {"lvb_val.json": [{"video_id": "86CxyhFV9MI", "question": "In the picture, who?",
                           "question_wo_referring_query": "Who?", "candidates": ["A man", "A cow"],
                           "correct_choice": 1, "position": [1], "topic_category": "NP",
                           "question_category": "TOS", "level": "IntraMoment",
                           "id": "86CxyhFV9MI_0", "video_path": "86CxyhFV9MI.mp4",
                           "subtitle_path": "x.json", "duration_group": 600,
                           "starting_timestamp_for_subtitles": 0, "duration": 190.16,
                           "view_count": 3}]},
        {"86CxyhFV9MI.mp4": "86CxyhFV9MI_0"},
        [("86CxyhFV9MI_0", ["In the picture, who?"])],
        metadata={"answer": 1, "options": ["A man", "A cow"], "duration_group": 600,
                  "question_type": "TOS"},
    ),
    "videomme": Example(
        "videomme",
        {"test.json": [{"video_id": "001", "duration": "short", "domain": "Knowledge",
                        "sub_category": "Humanity", "url": "x", "videoID": "fFjv93ACGo8",
                        "question_id": "001-1", "task_type": "Counting Problem",
                        "question": "What?", "answer": "B",
                        "options": ["A. Apples.", "B. B. King.", "C. 3", "D. 4"]}]},
        {"fFjv93ACGo8.mp4": "001-1"},
        [("001-1", ["What?"])],
        metadata={"answer": 1, "options": ["Apples.", "B. King.", "3", "4"], "duration": "short",
                  "question_type": "Counting Problem"},
    ),
    "lvbench": Example(
        "lvbench",
        {"video_info.meta.jsonl": lines(
            {"key": "Cm73ma6Ibcs", "type": "cartoon", "video_info": {"duration_minutes": 53},
             "qa": [{"uid": "7", "question": "What year is it?\n(A) 1636\n(B) 1366\n(C) 1\n(D) 2",
                     "answer": "B", "question_type": ["key information retrieval", "reasoning"],
                     "time_reference": "00:15-00:19"}]})},
        {"Cm73ma6Ibcs.mp4": "7"},
        [("7", ["What year is it?"])],
        metadata={"answer": 1, "options": ["1636", "1366", "1", "2"], "type": "cartoon",
                  "question_type": "key information retrieval, reasoning",
                  "time_reference": "00:15-00:19"},
    ),
    "lvbench table": Example(
        "lvbench",
        {"lvbench.json": [{"uid": 8, "video_path": "Cm73ma6Ibcs.mp4", "answer": "A",
                           "question": "Who?", "options": ["(A) He", "(B) She"],
                           "question_type": ["reasoning"], "time_reference": "00:15"}]},
        {"Cm73ma6Ibcs.mp4": "8"},
        [("8", ["Who?"])],
        metadata={"answer": 0, "options": ["He", "She"]},
    ),
    "moments": Example(
        "moments",
        {"my-moments.jsonl": lines(
            {"video": "a.mp4", "query": "a dog", "duration": 9, "relevant_windows": [[0, 2.5]]},
            {"video": "a.mp4", "query": "a cat", "duration": 9, "relevant_windows": []})},
        {"a.mp4": "a.mp4_0"},
        [("a.mp4_0", ["a dog"]), ("a.mp4_1", ["a cat"])],
        metadata={"moments": [[0, 2.5]], "duration": 9},
    ),
    "moments in a table": Example(
        "moments",
        {"moments.csv": "video,query,start,end\na.mp4,a dog,1,2.5\n"},
        {"a.mp4": "a.mp4_0"},
        [("a.mp4_0", ["a dog"])],
        metadata={"moments": [[1, 2.5]]},
    ),
    "charades-sta": Example(
        "charades-sta",
        {"charades_sta_test.txt": "3MSZA 24.3 30.4##person turns, a light on.\n"
                                  "3MSZA 0.0 6.5##a person sits.\n\nAMT7R 5.3 12.0##one eats.\n",
         "Charades_v1_test.csv": "id,subject,length\n3MSZA,x,30.96\n"},
        {"3MSZA.mp4": "3MSZA_1", "AMT7R.mp4": "AMT7R_0"},
        [("3MSZA_0", ["person turns, a light on."]), ("3MSZA_1", ["a person sits."]),
         ("AMT7R_0", ["one eats."])],
        metadata={"moments": [[24.3, 30.4]], "duration": 30.96},
    ),
    "activitynet-moments": Example(
        "activitynet-moments",
        {"val_1.json": {"v_uqiMw7tQ1Cc": {"duration": 55.1, "timestamps": [[0.2, 9], [8, 55]],
                                          "sentences": ["A man.", " He jumps."]}}},
        {"uqiMw7tQ1Cc.mkv": "v_uqiMw7tQ1Cc_1"},
        [("v_uqiMw7tQ1Cc_0", ["A man."]), ("v_uqiMw7tQ1Cc_1", ["He jumps."])],
        metadata={"moments": [[0.2, 9]], "duration": 55.1}, told=False,
    ),
    "qvhighlights": Example(
        "qvhighlights",
        {"highlight_val_release.jsonl": lines(
            {"qid": 9769, "query": "Some people walk.", "duration": 150, "vid": "j7r_360.0_510.0",
             "relevant_clip_ids": [36, 37], "saliency_scores": [[4, 1, 3], [2, 0, 4]],
             "relevant_windows": [[72, 76]]},
            {"qid": 3, "query": "A boat.", "duration": 150, "vid": "_6hn_60.0_210.0"})},
        {"j7r_360.0_510.0.mp4": "9769", "_6hn_60.0_210.0.mp4": "3"},
        [("9769", ["Some people walk."]), ("3", ["A boat."])],
        metadata={"moments": [[72, 76]], "duration": 150, "relevant_clip_ids": [36, 37],
                  "saliency_scores": [[4, 1, 3], [2, 0, 4]]},
    ),
}  # fmt: skip
