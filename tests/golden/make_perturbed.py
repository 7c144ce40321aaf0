#!/usr/bin/env python3
"""Makes the golden sets of perturbed guidance, tests/golden/perturbed-{sd1,sdxl}.*, in f64.

    python3 tests/golden/make_perturbed.py

A second implementation of the UNet, written from the names and shapes of the weights and the papers of
the methods, sharing nothing with the Rust code: PAG (arXiv 2403.17377), SEG (arXiv 2408.00760), SAG
(arXiv 2210.00939), alone and together. It first holds its own network to what ComfyUI computed
(`unet.*` and `step.*` of the sets beside it) and stops if it differs by more than f32 rounding.
Needs PyTorch, NumPy and safetensors.
"""
import json, math, pathlib

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file, save_file

HERE = pathlib.Path(__file__).parent
UNET = "model.diffusion_model."
torch.set_default_dtype(torch.float64)
torch.set_grad_enabled(False)


# Weights by formula, as src/checkpoint/synthetic.rs describes them.
def uniform(name, count):
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) & (2**64 - 1)
    with np.errstate(over="ignore"):
        z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(h)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return np.float32(2) * ((z >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)) - np.float32(1)


def weight(name, shape):
    up_skip = name.startswith(UNET + "output_blocks.") and name.endswith(".0.skip_connection.weight")
    if len(shape) >= 2:
        gain = 1.6 if name.endswith((".attn1.to_q.weight", ".attn1.to_k.weight")) else 0.7 if up_skip else 1.0
        scale, offset = np.float32(gain * math.sqrt(3.0 / math.prod(shape[1:]))), np.float32(0)
    elif name.endswith(".weight"):
        scale, offset = np.float32(0.1), np.float32(1)
    else:
        scale, offset = np.float32(0.2), np.float32(0)
    w = (uniform(name, math.prod(shape)) * scale + offset).reshape(shape)
    sign = lambda i: np.float32(1 if i // 4 % 2 == 0 else -1)
    if name == UNET + "input_blocks.0.0.weight":
        for i in range(shape[0]):
            w[i, i % 4, 1, 1] += np.float32(2) * sign(i)
    elif name == UNET + "out.2.weight":
        for i in range(shape[1]):
            w[i % 4, i, 1, 1] += sign(i) * np.float32(16.0 / shape[1])
    elif up_skip:
        for o in range(shape[0]):
            w[o, shape[1] - shape[0] + o, 0, 0] += np.float32(0.7)
    return torch.from_numpy(w.astype(np.float16).astype(np.float64))


class Network:
    """A UNet in f64; `perturbation` is None, "identity" or the width of the blur of queries."""

    def __init__(self, family):
        manifest = json.loads((HERE / "manifests" / f"{family}.json").read_text())
        self.config = manifest["unet"]
        self.w = {n.removeprefix(UNET): weight(n, s) for n, s in manifest["tensors"] if n.startswith(UNET)}

    def linear(self, path, x):
        w = self.w[path + ".weight"]
        return F.linear(x, w.reshape(w.shape[0], -1), self.w.get(path + ".bias"))

    def conv(self, path, x, stride=1):
        w = self.w[path + ".weight"]
        return F.conv2d(x, w, self.w[path + ".bias"], stride=stride, padding=w.shape[-1] // 2)

    def norm(self, path, x, eps=1e-5):
        return F.group_norm(x, 32, self.w[path + ".weight"], self.w[path + ".bias"], eps)

    def layer_norm(self, path, x):
        return F.layer_norm(x, x.shape[-1:], self.w[path + ".weight"], self.w[path + ".bias"], 1e-5)

    def resnet(self, path, x, emb):
        h = self.conv(path + ".in_layers.2", F.silu(self.norm(path + ".in_layers.0", x)))
        h = h + self.linear(path + ".emb_layers.1", F.silu(emb))[:, :, None, None]
        h = self.conv(path + ".out_layers.3", F.silu(self.norm(path + ".out_layers.0", h)))
        return h + (self.conv(path + ".skip_connection", x) if path + ".skip_connection.weight" in self.w else x)

    def split(self, x):
        c = x.shape[-1]
        heads = self.config.get("num_heads") or c // self.config["num_head_channels"]
        return x.reshape(*x.shape[:2], heads, c // heads).transpose(1, 2)

    def attention(self, path, x, context, size=None, perturbation=None, record=None):
        q, k, v = (self.linear(f"{path}.to_{n}", c) for n, c in (("q", x), ("k", context), ("v", context)))
        if perturbation == "identity":
            return self.linear(path + ".to_out.0", v)
        if perturbation is not None:
            q = blur_queries(q, size, perturbation)
        q, k, v = self.split(q), self.split(k), self.split(v)
        p = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), -1)
        if record is not None:
            record.append(p.mean(1).sum(1))
        return self.linear(path + ".to_out.0", (p @ v).transpose(1, 2).reshape(x.shape))

    def transformer(self, path, x, context, perturbation=None, record=None):
        b, c, height, width = x.shape
        h = self.norm(path + ".norm", x, 1e-6).flatten(2).transpose(1, 2)
        h = self.linear(path + ".proj_in", h)
        depth = sum(n.startswith(path + ".transformer_blocks.") and n.endswith(".norm1.weight") for n in self.w)
        for i in range(depth):
            block = f"{path}.transformer_blocks.{i}"
            n = self.layer_norm(block + ".norm1", h)
            h = h + self.attention(block + ".attn1", n, n, (height, width), perturbation, record if i == 0 else None)
            h = h + self.attention(block + ".attn2", self.layer_norm(block + ".norm2", h), context)
            value, gate = self.linear(block + ".ff.net.0.proj", self.layer_norm(block + ".norm3", h)).chunk(2, -1)
            h = h + self.linear(block + ".ff.net.2", value * F.gelu(gate))
        return x + self.linear(path + ".proj_out", h).transpose(1, 2).reshape(b, c, height, width)

    def blocks(self, kind):
        names = {tuple(n.split(".")[1:3]) for n in self.w if n.startswith(kind + ".")}
        return [[part for block, part in sorted(names) if block == str(i)] for i in range(len({b for b, _ in names}))]

    def forward(self, x, timestep, context, y=None, perturbation=None, record=None):
        half = self.config["model_channels"] // 2
        # The embedding is f32 in every implementation; f64 would be another network.
        freqs = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
        args = timestep.to(torch.float32)[:, None] * freqs[None]
        emb = torch.cat([torch.cos(args), torch.sin(args)], -1).double()
        emb = self.linear("time_embed.2", F.silu(self.linear("time_embed.0", emb)))
        if y is not None:
            emb = emb + self.linear("label_emb.0.2", F.silu(self.linear("label_emb.0.0", y)))
        skips, h = [], x
        for i, parts in enumerate(self.blocks("input_blocks")):
            path = f"input_blocks.{i}"
            if path + ".0.op.weight" in self.w:
                h = self.conv(path + ".0.op", h, stride=2)
            elif i == 0:
                h = self.conv(path + ".0", h)
            else:
                h = self.resnet(path + ".0", h, emb)
                h = self.transformer(path + ".1", h, context) if "1" in parts else h
            skips.append(h)
        h = self.resnet("middle_block.0", h, emb)
        h = self.transformer("middle_block.1", h, context, perturbation, record)
        h = self.resnet("middle_block.2", h, emb)
        for i, parts in enumerate(self.blocks("output_blocks")):
            path = f"output_blocks.{i}"
            h = self.resnet(path + ".0", torch.cat([h, skips.pop()], 1), emb)
            if f"{path}.1.norm.weight" in self.w:
                h = self.transformer(path + ".1", h, context)
            for part in parts:
                if f"{path}.{part}.conv.weight" in self.w:
                    h = F.interpolate(h, size=skips[-1].shape[-2:], mode="nearest")
                    h = self.conv(f"{path}.{part}.conv", h)
        return self.conv("out.2", F.silu(self.norm("out.0", h)))


def blur_queries(q, size, sigma):
    """Queries [b, tokens, c] blurred over the map of `size`, edges reflected; infinity is their mean."""
    maps = q.transpose(1, 2).reshape(q.shape[0], -1, *size)
    if math.isinf(sigma):
        return maps.mean((2, 3), keepdim=True).expand_as(maps).flatten(2).transpose(1, 2)
    for axis in (2, 3):
        taps = math.ceil(6 * sigma)
        taps = min(taps + 1 - taps % 2, size[axis - 2] + 1 - size[axis - 2] % 2)
        k = torch.arange(taps) - taps // 2
        kernel = torch.exp(-0.5 * (k / sigma) ** 2)
        kernel = kernel / kernel.sum()
        n = size[axis - 2]
        out = torch.zeros_like(maps)
        for offset, w in zip(k.tolist(), kernel):
            at = torch.arange(n) + offset
            at = torch.where(at < 0, -at, at)
            at = torch.where(at >= n, 2 * (n - 1) - at, at)
            out += w * maps.index_select(axis, at)
        maps = out
    return maps.flatten(2).transpose(1, 2)


def blur_latent(x, sigma):
    k = torch.arange(-4, 5)
    kernel = torch.exp(-0.5 * (k / sigma) ** 2)
    kernel = kernel / kernel.sum()
    c = x.shape[1]
    x = F.pad(x, (4, 4, 4, 4), mode="reflect")
    return F.conv2d(x, (kernel[:, None] * kernel[None])[None, None].expand(c, 1, 9, 9), groups=c)


def log_sigmas():
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas = np.cumprod(1 - betas)
    return np.log(((1 - alphas) / alphas) ** 0.5)


LOG_SIGMAS = log_sigmas()


def step(network, x, sigma, texts, y, cfg, sag, perturbed):
    """One guided evaluation of eps networks; all predictions in the picture's space."""

    def predict(x, side, perturbation=None, record=None):
        timestep = torch.full((x.shape[0],), float(np.abs(LOG_SIGMAS - math.log(sigma)).argmin()))
        context = texts[side].expand(x.shape[0], -1, -1)
        vector = None if y is None else y[side].expand(x.shape[0], -1)
        return x - sigma * network.forward(x / math.sqrt(sigma**2 + 1), timestep, context, vector, perturbation, record)

    record, found = [], {}
    found["cond"] = cond = predict(x, "pos")
    found["uncond"] = uncond = predict(x, "neg", record=record)
    found["cfg"] = result = uncond + (cond - uncond) * cfg
    if sag:
        found["colsum"] = columns = record[0]
        height, width = x.shape[2:]
        rows, cols = ((n + 1) // 2 for n in ((height + 1) // 2, (width + 1) // 2))
        mask = (columns > 1).double().reshape(-1, 1, rows, cols)
        found["mask"] = mask.reshape(columns.shape)
        index = lambda n, m: torch.tensor([int(np.float32(i) * np.float32(m / n)) for i in range(n)])
        mask = mask[:, :, index(height, rows)][:, :, :, index(width, cols)]
        found["degraded"] = degraded = mask * blur_latent(uncond, sag["blur_sigma"]) + (1 - mask) * uncond
        found["sag_input"] = degraded + x - uncond
        found["sag"] = predict(found["sag_input"], "neg")
        result = result + sag["scale"] * (degraded - found["sag"])
        print(f"    nearest column sum to the threshold: {float((columns - 1).abs().min()):.1e}")
    for i, p in enumerate(perturbed):
        kind = "identity" if p["attention"] == "identity" else float(p["sigma"])
        found[f"perturbed.{i}"] = worse = predict(x, "pos", kind)
        result = result + p["scale"] * (cond - worse)
    found["result"] = result
    return found


def held(what, found, expected, scale, limit):
    off = float((found - expected).abs().max() / scale)
    print(f"    {what}: {off:.1e}")
    assert off < limit, f"{what} differs by {off} of its spread from what ComfyUI computed"


PAG = {"attention": "identity", "scale": 3.0}
SEG = {"attention": "blurred", "scale": 3.0}
CASES = [
    {"height": 16, "width": 20, "batch": 2, "sigma": 7.5, "cfg": 5.0, "sag": None, "perturbed": [PAG]},
    {"height": 17, "width": 23, "batch": 1, "sigma": 1.1, "cfg": 1.0, "sag": None, "perturbed": [SEG | {"sigma": 0.8}]},
    {"height": 24, "width": 13, "batch": 1, "sigma": 3.0, "cfg": 7.0, "sag": None, "perturbed": [SEG | {"sigma": "inf"}]},
    {"height": 20, "width": 16, "batch": 1, "sigma": 2.0, "cfg": 7.0, "sag": {"scale": 0.8, "blur_sigma": 2.0},
     "perturbed": [PAG | {"scale": 2.0}, SEG | {"sigma": 5.0, "scale": 1.5}]},
    {"height": 8, "width": 3, "batch": 1, "sigma": 0.5, "cfg": 2.0, "sag": None, "perturbed": [PAG, SEG | {"sigma": 2.0}]},
]


def make(family, name):
    print(family)
    network = Network(family)
    known_json = json.loads((HERE / f"{family}.json").read_text())
    known = {k: torch.from_numpy(v.astype(np.float64)) for k, v in load_file(HERE / f"{family}.safetensors").items()}
    texts = {side: known[f"text.{side}.cond"] for side in ("pos", "neg")}
    for case in known_json["unet"]:
        n = f"unet.{case['name']}"
        if not all(c in known for c in case["context"]):
            continue
        context = torch.cat([known[c] for c in case["context"]])
        out = network.forward(known[n + ".x"], known[n + ".timestep"], context, known.get(n + ".y"))
        held(n, out, known[n + ".out"], known[n + ".out"].std(), 1e-5)

    def vectors(height, width):
        if "y" not in " ".join(k.rsplit(".", 1)[-1] for k in known if k.startswith("unet.")).split():
            return None
        numbers = torch.tensor([height * 8, width * 8, 0, 0, height * 8, width * 8], dtype=torch.float32)
        freqs = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float32) / 128)
        args = numbers[:, None] * freqs[None]
        sizes = torch.cat([torch.cos(args), torch.sin(args)], -1).flatten().double()
        return {s: torch.cat([known[f"text.{s}.pooled"].flatten(), sizes])[None] for s in ("pos", "neg")}

    for case in known_json["step"]:
        n = f"step.{case['name']}"
        if n + ".x" not in known or case["skipped"]:
            continue
        x, y = known[n + ".x"], vectors(case["height"], case["width"])
        found = step(network, x, case["sigma"], texts, y, case["cfg"], case["sag"], [])
        scale = (x - known[n + ".result"]).std()
        held(n + ".result", found["result"], known[n + ".result"], scale, 3e-5)

    steps, tensors = [], {f"text.{s}.{w}": known[f"text.{s}.{w}"] for s in ("pos", "neg") for w in ("cond", "pooled")
                          if f"text.{s}.{w}" in known}
    for i, case in enumerate(CASES):
        generator = torch.Generator().manual_seed(100 + i)
        shape = [case["batch"], 4, case["height"], case["width"]]
        x = torch.randn(shape, generator=generator, dtype=torch.float32).double() * math.sqrt(case["sigma"] ** 2 + 1)
        x = x.float().double()
        y = vectors(case["height"], case["width"])
        found = step(network, x, case["sigma"], texts, y, case["cfg"], case["sag"], case["perturbed"])
        small = min(case["height"], case["width"]) <= 4
        entry = case | {"name": str(i), "skipped": small}
        if "mask" in found:
            entry["mask_size"] = [(((case[k] + 1) // 2) + 1) // 2 for k in ("height", "width")]
        steps.append(entry)
        tensors[f"step.{i}.x"] = x
        tensors |= {f"step.{i}.{k}": v for k, v in found.items()}
    as_stored = lambda k, v: v.numpy().astype(np.uint8 if k.endswith(".mask") else np.float32)
    save_file({k: np.ascontiguousarray(as_stored(k, v)) for k, v in tensors.items()}, HERE / f"{name}.safetensors")
    head = {k: known_json[k] for k in ("kind", "family", "synthetic_seed")}
    head |= {"dtype": "f16 stored, run in f64", "text": {"prompts": known_json["text"]["prompts"]}, "step": steps}
    (HERE / f"{name}.json").write_text(json.dumps(head, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    make("tiny-sd1", "perturbed-sd1")
    make("tiny-sdxl", "perturbed-sdxl")
