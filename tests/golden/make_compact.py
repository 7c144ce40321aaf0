#!/usr/bin/env python3
"""Cuts the golden sets down to what is kept here, and to what is built into the program.

    python3 tests/golden/make_compact.py FOLDER

FOLDER holds the whole sets (NAME.json, NAME.safetensors, manifests/). Written are
tests/golden/{tiny-sd1,tiny-sd2,tiny-sdxl,sag_node,chunk}.* for the tests, and src/verify/data/* for `sagittal verify`
without arguments. Only the standard library is needed.
"""
import json, pathlib, struct, sys

TESTS = pathlib.Path(__file__).parent
DATA = TESTS.parent.parent / "src" / "verify" / "data"
# Attention probabilities above this size are left out but for these cases; their column sums stay.
LARGE_ATTENTION = 100_000
OTHER_RUNS = {"sag_euler", "sag_dpmpp_2m_sde", "cfg1", "batch3", "unequal_prompts", "img2img_2m"}
KEEP_ATTENTION = {"square64_r8", "odd_33x47_r4"}


def load(folder, name):
    """The set's JSON and its tensors as {name: (header entry, bytes)}."""
    case = json.loads((folder / f"{name}.json").read_text())
    path = folder / f"{name}.safetensors"
    if not path.exists():
        return case, {}
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    cut = lambda e: data[8 + length + e["data_offsets"][0] : 8 + length + e["data_offsets"][1]]
    return case, {n: (e, cut(e)) for n, e in header.items()}


def save(folder, name, case, tensors, indent=None):
    text = json.dumps(case, ensure_ascii=False, indent=indent, separators=(",", ":") if indent is None else None)
    (folder / f"{name}.json").write_text(text + "\n")
    if not tensors:
        return
    # Wider elements first keeps them aligned.
    order = sorted(tensors, key=lambda n: (tensors[n][0]["dtype"] != "F32", n))
    header, offset = {}, 0
    for n in order:
        entry, data = tensors[n]
        header[n] = {"dtype": entry["dtype"], "shape": entry["shape"], "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    (folder / f"{name}.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(tensors[n][1] for n in order))


def named(cases, names):
    return [c for c in cases if c["name"] in names]


def under(tensors, prefixes):
    """Tensors that belong to one of the cases `prefixes`; names of cases may hold dots."""
    return {n: t for n, t in tensors.items() if any(n == p or n.startswith(p + ".") for p in prefixes)}


def model(case, tensors, text, unet, vae, step, run, trace):
    """A model set with the named cases only, and the tensors that they use."""
    case = dict(case)
    case["text"] = dict(case["text"], cases=named(case["text"]["cases"], text))
    case["vae"] = named(case["vae"], vae)
    case["step"] = named(case["step"], step)
    case["run"] = [r for r in case["run"] if run(r)]
    case["unet"] = named(case["unet"], unet)
    if not trace:
        case["unet"] = [dict(u, trace=[]) for u in case["unet"]]
    prefixes = [f"{part}.{c['name']}" for part in ("unet", "vae", "step", "run") for c in case[part]]
    prefixes += [f"text.{name}" for name in text]
    prefixes += [r[key] for r in case["run"] for key in ("noise", "latent") if key in r]
    kept = under(tensors, prefixes)
    return case, {n: t for n, t in kept.items() if trace or ".trace." not in n}


def for_tests(folder):
    case, tensors = load(folder, "tiny-sd1")
    everything = lambda part: {c["name"] for c in part}
    case, tensors = model(
        case, tensors, everything(case["text"]["cases"]), everything(case["unet"]), everything(case["vae"]),
        everything(case["step"]), lambda r: True, trace=True)
    save(TESTS, "tiny-sd1", case, tensors, indent=1)

    # Of the other families what differs from SD 1: text, prediction, the vector of SDXL.
    for family in ("tiny-sd2", "tiny-sdxl"):
        case, tensors = load(folder, family)
        texts, unets = everything(case["text"]["cases"]), everything(case["unet"])
        case, tensors = model(
            case, tensors, texts, unets, {"1"}, {"0", "1", "2", "5", "6"}, lambda r: r["name"] in OTHER_RUNS, trace=True)
        save(TESTS, family, case, tensors, indent=1)

    case, tensors = load(folder, "sag_node")
    spare = lambda n, t: n.endswith(".attn") and len(t[1]) > LARGE_ATTENTION and n[:-5] not in KEEP_ATTENTION
    tensors = {n: t for n, t in tensors.items() if not spare(n, t)}
    save(TESTS, "sag_node", case, tensors, indent=1)

    save(TESTS, "chunk", *load(folder, "chunk"), indent=1)


def for_the_program(folder):
    DATA.mkdir(parents=True, exist_ok=True)
    for family in ("tiny-sd1", "tiny-sd2", "tiny-sdxl"):
        whole = json.loads((folder / "manifests" / f"{family}.json").read_text())
        manifest = {key: whole[key] for key in ("family", "prediction", "tensors")}
        (DATA / f"manifest-{family}.json").write_text(json.dumps(manifest, separators=(",", ":")) + "\n")

    case, tensors = load(folder, "tiny-sd1")
    case, tensors = model(
        case, tensors, {"pos", "neg"}, {"a"}, {"1"}, {"0", "5"}, lambda r: r["name"] == "sag_euler", trace=False)
    tensors.pop("vae.1.image")
    tensors.pop("vae.1.encoded_mean")
    prompts = case["text"]["prompts"]
    case["text"]["prompts"] = {name: prompts[name] for name in ("pos", "neg")}
    save(DATA, "tiny-sd1", case, tensors)

    case, tensors = load(folder, "sag_node")
    names = {"small_5x5_r8", "crash_44x12_r8", "thin_5x40_r8", "thin_72x9_r8"}
    save(DATA, "sag_node", dict(kind="sag_node", cases=named(case["cases"], names)), under(tensors, names))

    case, tensors = load(folder, "noise")
    cases = [c for c in case["cases"] if c["seed"] in (0, 2**63 + 11) and (c["stored"] == "all") == (c["seed"] == 0)]
    cut = dict(kind="noise", cases=cases, noise_inds=case["noise_inds"], ancestral=case["ancestral"][:1])
    save(DATA, "noise", cut, under(tensors, [c["name"] for key in cut if key != "kind" for c in cut[key]]))

    case, _ = load(folder, "schedules")
    cut = {key: case[key] for key in ("kind", "timestep_of_sigma", "sigma_of_timestep", "percent_to_sigma")}
    cut["schedules"] = [s for s in case["schedules"] if s["steps"] in (1, 20) and not s["discard_penultimate"]]
    save(DATA, "schedules", cut, {})

    case, _ = load(folder, "tokens")
    save(DATA, "tokens", dict(kind="tokens", prompts=case["prompts"][2::4]), {})


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for_tests(pathlib.Path(sys.argv[1]))
    for_the_program(pathlib.Path(sys.argv[1]))
