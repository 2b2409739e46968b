"""Small image-text models of open_clip with random weights, as files."""

import json

import torch

CLIP = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
# timm's smallest ViT; it has a class token, which SigLIP's pooling leaves out.
SIGLIP = {
    "embed_dim": 64,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 32,
        "timm_model_name": "test_vit",
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": {
        "context_length": 12,
        "vocab_size": 160,
        "hf_tokenizer_name": "recipes/encoders/bert_demo",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": 64,
        "heads": 2,
        "layers": 2,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6},
    },
}
CLIPA = {
    "embed_dim": 24,
    "vision_cfg": CLIP["vision_cfg"] | {"no_ln_pre": True, "pool_type": "avg"},
    "text_cfg": SIGLIP["text_cfg"]
    | {"tokenizer_kwargs": {"strip_sep_token": True}, "width": 16, "proj_bias": False},
}
TIMM_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {
        "image_size": 32,
        "timm_model_name": "test_vit",
        "timm_pool": "token",
        "timm_proj": "linear",
    },
    "text_cfg": CLIP["text_cfg"] | {"pool_type": "eos", "eos_id": 49407, "no_causal_mask": True},
    "custom_text": True,
}
MODELS = {"clip": CLIP, "siglip": SIGLIP, "clipa": CLIPA, "timm": TIMM_CLIP}


def write_model(kind, folder, root):
    """Write ``KIND.json`` and ``KIND.pt``; return the model itself and both paths."""
    import open_clip

    config = json.loads(json.dumps(MODELS[kind]))
    text = config["text_cfg"]
    if "hf_tokenizer_name" in text:
        text["hf_tokenizer_name"] = str(root / text["hf_tokenizer_name"])
    custom = config.pop("custom_text", False)
    torch.manual_seed(0)
    model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config).eval()
    if custom:
        model.visual.set_input_size(config["vision_cfg"]["image_size"])
    for parameter in model.parameters():  # fresh ones hardly tell inputs apart
        parameter.data += 0.1 * torch.randn_like(parameter)
    folder.mkdir(parents=True, exist_ok=True)
    config_file, weights = folder / f"{kind}.json", folder / f"{kind}.pt"
    config_file.write_text(json.dumps(config))
    torch.save(model.state_dict(), weights)
    return model.requires_grad_(False), str(config_file), str(weights)
