"""Random state dicts in the published layout, written from the specification alone."""

import math

import torch

VARIANTS = {"tiny": (192, 24), "small": (384, 24), "middle": (576, 32), "base": (768, 24)}


class Shapes(dict):
    """Key to shape; ``tensors`` fills them at random."""

    def linear(self, name, out, inner, bias=True):
        self[f"{name}.weight"] = (out, inner)
        if bias:
            self[f"{name}.bias"] = (out,)

    def norm(self, name, width, bias=True):
        self[f"{name}.weight"] = (width,)
        if bias:
            self[f"{name}.bias"] = (width,)

    def tensors(self, dtype=torch.float32, scale=0.02, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return {
            key: (scale * torch.randn(shape, generator=generator)).to(dtype)
            for key, shape in self.items()
        }


def trunk(width, depth, grid=14, frames=8, norm="norm", prefix="", patch=16):
    """The keys of a VideoMamba without heads; ``frames`` None = an image model."""
    shapes = Shapes()
    inner, rank = 2 * width, math.ceil(width / 16)
    shapes[f"{prefix}cls_token"] = (1, 1, width)
    shapes[f"{prefix}pos_embed"] = (1, 1 + grid * grid, width)
    kernel = (patch, patch) if frames is None else (1, patch, patch)
    if frames is not None:
        shapes[f"{prefix}temporal_pos_embedding"] = (1, frames, width)
    shapes[f"{prefix}patch_embed.proj.weight"] = (width, 3, *kernel)
    shapes[f"{prefix}patch_embed.proj.bias"] = (width,)
    for layer in range(depth):
        mixer = f"{prefix}layers.{layer}.mixer."
        shapes.linear(f"{mixer}in_proj", 2 * inner, width, bias=False)
        shapes.linear(f"{mixer}out_proj", width, inner, bias=False)
        for direction in ("", "_b"):
            shapes[f"{mixer}conv1d{direction}.weight"] = (inner, 1, 4)
            shapes[f"{mixer}conv1d{direction}.bias"] = (inner,)
            shapes.linear(f"{mixer}x_proj{direction}", rank + 32, inner, bias=False)
            shapes.linear(f"{mixer}dt_proj{direction}", inner, rank)
            shapes[f"{mixer}A{direction}_log"] = (inner, 16)
            shapes[f"{mixer}D{direction}"] = (inner,)
        shapes.norm(f"{prefix}layers.{layer}.norm", width, bias=False)
    shapes.norm(f"{prefix}{norm}", width, bias=False)
    return shapes


def classifier(width, depth, classes, **settings):
    shapes = trunk(width, depth, norm="norm_f", **settings)
    shapes.linear("head", classes, width)
    return shapes


def masked_pretrain(width, depth, output=512, prefix="", **settings):
    shapes = trunk(width, depth, prefix=prefix, **settings)
    shapes.linear(f"{prefix}clip_decoder.0.head", output, width)
    shapes.norm(f"{prefix}clip_decoder.0.norm", output)
    return shapes


def bert(width, depth, fusion, vision, inner, vocab, positions):
    shapes = Shapes()
    root = "text_encoder.bert."
    for name, rows in (("word", vocab), ("position", positions), ("token_type", 2)):
        shapes[f"{root}embeddings.{name}_embeddings.weight"] = (rows, width)
    shapes.norm(f"{root}embeddings.LayerNorm", width)
    for layer in range(depth):
        here = f"{root}encoder.layer.{layer}."
        blocks = [("attention", width)] + [("crossattention", vision)] * (layer >= fusion)
        for block, source in blocks:
            shapes.linear(f"{here}{block}.self.query", width, width)
            for part in ("key", "value"):
                shapes.linear(f"{here}{block}.self.{part}", width, source)
            shapes.linear(f"{here}{block}.output.dense", width, width)
            shapes.norm(f"{here}{block}.output.LayerNorm", width)
        shapes.linear(f"{here}intermediate.dense", inner, width)
        shapes.linear(f"{here}output.dense", width, inner)
        shapes.norm(f"{here}output.LayerNorm", width)
    head = "text_encoder.cls.predictions."
    shapes[f"{head}bias"] = (vocab,)
    shapes.linear(f"{head}transform.dense", width, width)
    shapes.norm(f"{head}transform.LayerNorm", width)
    return shapes


def video_text_shapes(
    width, depth, text=(768, 12, 9, 3072, 30522, 512), output=512, joint=512, **settings
):
    text_width, text_depth, fusion, inner, vocab, positions = text
    shapes = masked_pretrain(width, depth, output, "vision_encoder.", **settings)
    shapes.norm("vision_encoder.pool_norm", width)
    shapes.update(bert(text_width, text_depth, fusion, width, inner, vocab, positions))
    shapes.linear("vision_proj", joint, width)
    shapes.linear("text_proj", joint, text_width)
    shapes["temp"] = ()
    shapes.linear("itm_head", 2, text_width)
    return shapes


def video_text(width, depth, dtype=torch.float32, **settings):
    """Tensors of a stage-2 file, with those that it stores twice or as constants."""
    state = video_text_shapes(width, depth, **settings).tensors(dtype)
    state["temp"] = torch.tensor(0.07, dtype=dtype)
    words = state["text_encoder.bert.embeddings.word_embeddings.weight"]
    positions = len(state["text_encoder.bert.embeddings.position_embeddings.weight"])
    state["text_encoder.bert.embeddings.position_ids"] = torch.arange(positions)[None]
    state["text_encoder.cls.predictions.decoder.weight"] = words
    state["text_encoder.cls.predictions.decoder.bias"] = state["text_encoder.cls.predictions.bias"]
    return state


def clip_visual(width=24, depth=3, output=32, patch=16, grid=3):
    shapes = Shapes()
    shapes["class_embedding"] = (width,)
    shapes["positional_embedding"] = (1 + grid * grid, width)
    shapes["proj"] = (width, output)
    shapes["conv1.weight"] = (width, 3, patch, patch)
    for name in ("ln_pre", "ln_post"):
        shapes.norm(name, width)
    for block in range(depth):
        here = f"transformer.resblocks.{block}."
        shapes[f"{here}attn.in_proj_weight"] = (3 * width, width)
        shapes[f"{here}attn.in_proj_bias"] = (3 * width,)
        shapes.linear(f"{here}attn.out_proj", width, width)
        shapes.linear(f"{here}mlp.c_fc", 4 * width, width)
        shapes.linear(f"{here}mlp.c_proj", width, 4 * width)
        for name in ("ln_1", "ln_2"):
            shapes.norm(f"{here}{name}", width)
    return shapes
