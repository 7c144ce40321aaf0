#!/usr/bin/env python3
"""Makes tests/workflows/expected.safetensors: the latents of workflows of this folder, in f64.

    python3 tests/workflows/make_expected.py

For what no golden run of ComfyUI covers (its own node goes astray with two negatives, and the sets hold no
area or second sampler). The network and its guidance are those of tests/golden/make_perturbed.py, which
reproduces ComfyUI's tensors; areas, noise, schedules and samplers are written here from ComfyUI's rules. Texts
are those of the golden set. Needs PyTorch, NumPy and safetensors.
"""
import math, pathlib, sys

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "golden"))
from make_perturbed import LOG_SIGMAS, Network, blur_latent  # noqa: E402

SCALE = 0.18215
NETWORK = Network("tiny-sd1")
KNOWN = load_file(HERE.parent / "golden" / "tiny-sd1.safetensors")
SIGMAS = np.exp(LOG_SIGMAS)


def text(name, **place):
    return {"context": torch.from_numpy(KNOWN[f"text.{name}.cond"].astype(np.float64)), "strength": 1.0} | place


def weights(entry, x):
    """Area (height, width, y, x in cells) and the weight of each of its cells, faded at inner edges."""
    height, width = x.shape[2:]
    area = entry.get("area")
    if area is None:
        return (0, 0, height, width), torch.full((height, width), entry["strength"])
    h, w, top, left = area
    h, w = min(h, height - top), min(w, width - left)
    mult = torch.full((h, w), entry["strength"])
    for axis, (size, start, whole) in enumerate(((h, top, height), (w, left, width))):
        fade = min(8, size // 4)
        for t in range(fade):
            if start != 0:
                mult.select(axis, t).mul_((t + 1) / fade)
            if start + size < whole:
                mult.select(axis, size - 1 - t).mul_((t + 1) / fade)
    return (top, left, h, w), mult


def predict(entries, x, sigma, perturbation=None, record=False):
    """The mean of the entries' predictions, and that of their attention at each cell."""
    timestep = torch.tensor([float(np.abs(LOG_SIGMAS - math.log(sigma)).argmin())])
    total, sums = torch.zeros(x.shape[2:]), torch.zeros_like(x)
    scores = torch.zeros(x.shape[2:])
    for entry in entries:
        (top, left, h, w), mult = weights(entry, x)
        part = x[:, :, top : top + h, left : left + w]
        columns = [] if record else None
        eps = NETWORK.forward(part / math.sqrt(sigma**2 + 1), timestep, entry["context"], None, perturbation, columns)
        sums[:, :, top : top + h, left : left + w] += mult * (part - sigma * eps)
        total[top : top + h, left : left + w] += mult
        if record:
            rows, cols = (((n + 1) // 2 + 1) // 2 for n in (h, w))
            index = lambda n, m: torch.tensor([int(np.float32(i) * np.float32(m / n)) for i in range(n)])
            full = columns[0].reshape(rows, cols)[index(h, rows)][:, index(w, cols)]
            scores[top : top + h, left : left + w] += mult * full
    return sums / total, scores / total


class Guided:
    def __init__(self, positive, negative, cfg, sag=None, pag=0.0):
        self.positive, self.negative = list(positive), list(negative)
        self.cfg, self.sag, self.pag = cfg, sag, pag
        # An entry with an area brings its opposite to the other side.
        for entry in positive:
            if "area" in entry:
                self.negative.append(entry | {"context": self.negative[0]["context"]})

    def __call__(self, x, sigma):
        cond, _ = predict(self.positive, x, sigma)
        uncond, scores = predict(self.negative, x, sigma, record=self.sag is not None)
        result = uncond + (cond - uncond) * self.cfg
        if self.sag:
            scale, width = self.sag
            mask = (scores > 1).double()
            print(f"  sigma {sigma:.3f}: nearest score to the threshold {float((scores - 1).abs().min()):.1e}")
            degraded = mask * blur_latent(uncond, width) + (1 - mask) * uncond
            worse, _ = predict(self.negative, degraded + x - uncond, sigma)
            result = result + scale * (degraded - worse)
        if self.pag:
            worse, _ = predict(self.positive, x, sigma, "identity")
            result = result + self.pag * (cond - worse)
        return result


def sigma_of(timestep):
    low = np.floor(timestep).astype(int)
    high = np.ceil(timestep).astype(int)
    part = timestep - low
    return np.exp((1 - part) * LOG_SIGMAS[low] + part * LOG_SIGMAS[high])


def normal(steps):
    # With 4 steps all timesteps are whole: halves lie between two, and rounding would choose.
    return list(sigma_of(np.linspace(999, 0, steps))) + [0.0]


def karras(steps):
    ramp, low, high = np.linspace(0, 1, steps), SIGMAS[0] ** (1 / 7), SIGMAS[-1] ** (1 / 7)
    return list((high + ramp * (low - high)) ** 7) + [0.0]


def last(schedule, steps, denoise):
    return schedule(int(steps / denoise))[-(steps + 1) :]


def noise(seed, height, width):
    return torch.randn([1, 4, height, width], generator=torch.manual_seed(seed), dtype=torch.float32).double()


def sample(guided, sampler, sigmas, noise, latent=None):
    # The table is f32 in every implementation.
    sigmas = [float(np.float32(s)) for s in sigmas]
    largest = sigmas[0] > SIGMAS[-1] * (1 - 1e-5)
    x = noise * (math.sqrt(1 + sigmas[0] ** 2) if largest else sigmas[0])
    if latent is not None:
        x = x + latent * SCALE
    before = None
    for i, (sigma, to) in enumerate(zip(sigmas, sigmas[1:])):
        denoised = guided(x, sigma)
        if sampler == "euler":
            x = x + (x - denoised) / sigma * (to - sigma)
        else:  # dpmpp_2m
            better = denoised
            if before is not None and to > 0:
                h, h_last = math.log(sigma / to), math.log(sigmas[i - 1] / sigma)
                r = h_last / h
                better = (1 + 1 / (2 * r)) * denoised - 1 / (2 * r) * before
            x = denoised if to == 0 else (to / sigma) * x + (1 - to / sigma) * better
        before = denoised
    return x / SCALE


POS, NEG = text("pos"), text("neg")
made = {}
print("two negatives")
guided = Guided([POS], [NEG, text("empty")], 7.0, sag=(0.75, 2.0))
made["two_negatives"] = sample(guided, "euler", karras(3), noise(90, 16, 20))
print("area")
place = text("plain", area=(12, 10, 0, 10), strength=1.2)
made["area"] = sample(Guided([POS, place], [NEG], 5.0), "euler", normal(4), noise(5, 16, 20))
print("hires fix")
first = sample(Guided([POS], [NEG], 7.0, sag=(0.5, 2.0)), "euler", normal(4), noise(42, 16, 16))
larger = torch.nn.functional.interpolate(first, size=(24, 24), mode="nearest-exact")
made["hires_fix"] = sample(Guided([POS], [NEG], 7.0), "dpmpp_2m", last(karras, 4, 0.55), noise(7, 24, 24), larger)
print("PAG beside SAG")
guided = Guided([POS], [NEG], 5.0, sag=(0.5, 2.0), pag=3.0)
made["pag_beside_sag"] = sample(guided, "euler", normal(4), noise(11, 16, 20))
save_file({k: v.numpy().astype(np.float32) for k, v in made.items()}, HERE / "expected.safetensors")
