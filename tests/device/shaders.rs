//! Every shader variant that a plan can hold, without a GPU: it validates, becomes SPIR-V, MSL and
//! HLSL, keeps to what every WebGPU device offers, and agrees with the Rust side on parameters and
//! bindings.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::LazyLock;

use super::operations::operations;
use super::uses::uses;
use crate::common::{Failures, MANIFESTS};
use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, GlobalUse, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, GlobalVariable, Handle, Module, StorageAccess, TypeInner};
use sagittal::checkpoint::{Checkpoint, Dtype, Manifest};
use sagittal::internals::bench::presets::Preset;
use sagittal::internals::graph::{Activation, Graph, Shape, Store};
use sagittal::internals::kernels::gemm::simd;
use sagittal::internals::kernels::{
    Call, DeviceProfile, Field, Holds, LEAST_MEMORY, Matrices, Operand, Precision, Variant, latents, samples,
};
use sagittal::internals::model::config::{ModelConfig, TextConfig};
use sagittal::internals::model::unet::{self, Perturbation, Width};
use sagittal::internals::model::vae;
use sagittal::internals::plan::{self, Bound, Plan, Storage};
use sagittal::internals::{shader, text::clip};

/// What `wgpu::Limits::default()` grants, and with it every device.
const MAX_INVOCATIONS: u32 = 256;
const MAX_WORKGROUP_BYTES: u32 = 16 << 10;
const MAX_STORAGE_BUFFERS: usize = 8;

/// Workgroup memory of a GPU on which kernels with cooperative matrices have all that they want.
const COOPERATIVE_BYTES: u32 = 48 << 10;

/// How a variant is used: bytes of its parameters, and what is at bindings 1, 2, ...
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    params: usize,
    bindings: Vec<Binding>,
}

impl Usage {
    /// Whether a variant that learns at run time which bindings there are can be used in both ways.
    fn fits(&self, other: &Self) -> bool {
        let mut both = self.bindings.iter().zip(&other.bindings);
        self.params == other.params
            && self.bindings.len() == other.bindings.len()
            && both.all(|(a, b)| a == b || [a, b].contains(&&Binding::Unused))
    }

    /// Takes from `other` what is not used here.
    fn add(&mut self, other: &Self) {
        for (own, other) in self.bindings.iter_mut().zip(&other.bindings) {
            if *own == Binding::Unused {
                *own = *other;
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Binding {
    Weight,
    Activation,
    Scalars,
    Unused,
}

/// A variant with its parsed and validated shader.
struct Checked {
    variant: Variant,
    /// For a CPU driver whose lanes share what they load.
    shared: bool,
    usage: Usage,
    module: Module,
    info: ModuleInfo,
}

/// All variants, checked once for all tests.
static CHECKED: LazyLock<Vec<Checked>> = LazyLock::new(|| {
    let mut failures = Failures::default();
    let checked: Vec<Checked> = variants()
        .into_iter()
        .flat_map(|(variant, usage)| {
            let ways = if variant.is_simd() { vec![false, true] } else { vec![false] };
            ways.into_iter().map(move |shared| (variant.clone(), usage.clone(), shared))
        })
        .filter_map(|(variant, usage, shared)| match check(&variant, shared) {
            Ok((module, info)) => Some(Checked { variant, shared, usage, module, info }),
            Err(e) => {
                failures.check(false, || format!("{variant}: {e}"));
                None
            }
        })
        .collect();
    failures.finish();
    checked
});

fn check(variant: &Variant, shared: bool) -> Result<(Module, ModuleInfo), String> {
    let offers = shader::Offers { matrices: variant.matrices().into_iter().collect(), shared_loads: shared };
    let text = shader::source(variant, &offers).map_err(|e| e.to_string())?;
    let module = naga::front::wgsl::parse_str(&text).map_err(|e| e.emit_to_string(&text))?;
    // Packing f16 into words needs no feature, but naga counts it as a capability.
    let capabilities = match variant.precision {
        _ if variant.is_cooperative() => {
            Capabilities::SHADER_FLOAT16
                | Capabilities::SHADER_FLOAT16_IN_FLOAT32
                | Capabilities::SUBGROUP
                | Capabilities::SUBGROUP_BARRIER
                | Capabilities::COOPERATIVE_MATRIX
        }
        Precision::F32 if !simd::has_f16_weights(variant) => Capabilities::empty(),
        _ => Capabilities::SHADER_FLOAT16_IN_FLOAT32,
    };
    let sharing =
        if shared { Capabilities::SUBGROUP | Capabilities::SHADER_INT64 } else { Capabilities::empty() };
    let capabilities = capabilities | sharing;
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    let info = validator.validate(&module).map_err(|e| e.emit_to_string(&text))?;
    Ok((module, info))
}

/// Variants of all networks in all families, and those that no network happens to need.
pub fn variants() -> HashMap<Variant, Usage> {
    let mut found = HashMap::new();
    let graphs = networks().into_iter().chain([every_operation(), every_product()]);
    for (name, graph) in graphs {
        for how in ways_to_store() {
            let [one, three] = [1, 3].map(|rows| dispatched(&name, &graph, rows, 1 << 40, how.clone()));
            // A row's result must not depend on its company.
            assert_eq!(one, three, "{name}: variants for one row and for three");
            for (variant, usage) in one {
                let known = found.entry(variant.clone()).or_insert_with(|| usage.clone());
                let same = *known == usage || variant.is_simd() && known.fits(&usage);
                assert!(same, "{variant} is used in two ways");
                known.add(&usage);
            }
        }
    }
    for call in samples() {
        let usage = sampled(&call);
        let known = found.entry(call.variant.clone()).or_insert_with(|| usage.clone());
        assert_eq!(*known, usage, "{} is used in two ways", call.variant);
    }
    for (name, graph) in conditioning() {
        for how in ways_to_store() {
            found.extend(dispatched(&name, &graph, 1, 1 << 40, how.clone()));
        }
    }
    for (name, graph) in large() {
        for how in ways_to_store() {
            found.extend(dispatched(&name, &graph, 1, 1 << 20, how));
        }
    }
    let halved: Vec<&Variant> = found.keys().filter(|v| simd::has_f16_weights(v)).collect();
    assert!(halved.len() > 8, "{} products with weights in f16", halved.len());
    found
}

/// What reads the prompts of every family, one at a time.
fn conditioning() -> Vec<(String, Graph)> {
    let graph = |(name, text): (&str, &str)| {
        let model = Checkpoint::synthetic(&Manifest::parse(text).unwrap(), 0, Dtype::F16).unwrap();
        let config = ModelConfig::infer(&model).unwrap();
        (format!("{name} conditioning"), unet::conditioning(&config.unet, 77).unwrap())
    };
    MANIFESTS.into_iter().map(graph).collect()
}

/// Networks too large for the small device that they are planned for: computed in parts.
fn large() -> Vec<(String, Graph)> {
    let manifest = Manifest::parse(MANIFESTS[0].1).unwrap();
    let config = ModelConfig::infer(&Checkpoint::synthetic(&manifest, 0, Dtype::F16).unwrap()).unwrap();
    let options = unet::Options { size: (80, 72), tokens: 77, record: false, ..Default::default() };
    let unet = unet::build(&config.unet, &options).unwrap();
    vec![("large unet".into(), unet), ("large decoder".into(), vae::decoder(&config.vae, 24, 31).unwrap())]
}

/// Profiles, the precisions of networks on them, and whether files hold f16, which CPU drivers keep.
fn ways_to_store() -> Vec<(DeviceProfile, Precision, bool)> {
    use {DeviceProfile as D, Precision as P};
    let of = |matrices, memory| (D::with_matrices(matrices, memory), P::F16, true);
    let least = Matrices::ALL.map(|matrices| of(matrices, LEAST_MEMORY));
    // More memory makes other tiles, which one kind of matrices shows.
    let cooperative = least.into_iter().chain([of(Matrices::ALL[0], COOPERATIVE_BYTES)]);
    let [wide, halves] = [false, true].map(|halves| (D::cpu(), P::F32, halves));
    let plain = [(D::gpu(), P::F32, true), (D::gpu(), P::F16, true), wide, halves, (D::cpu(), P::F16, true)];
    plain.into_iter().chain(cooperative).collect()
}

fn dispatched(
    name: &str,
    graph: &Graph,
    rows: usize,
    max_binding: u64,
    (profile, precision, halves): (DeviceProfile, Precision, bool),
) -> Vec<(Variant, Usage)> {
    let device = DeviceProfile { max_binding, max_buffer: 1 << 40, ..profile };
    let storage = Storage::of(graph.weights(), precision, &device, |_| halves);
    let options = plan::PlanOptions { rows, storage, device, guard: 0 };
    let plan = Plan::new(graph, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
    let kind = |b: &Bound| match b {
        Bound::Weight(_) => Binding::Weight,
        Bound::Arena(_) | Bound::Kept(_) => Binding::Activation,
        Bound::Unused => Binding::Unused,
    };
    let usage = |d: &plan::Dispatch| Usage {
        params: d.params.len(),
        bindings: d.bindings.iter().map(kind).collect(),
    };
    plan.dispatches.iter().map(|d| (d.variant.clone(), usage(d))).collect()
}

/// How a sample of a kernel's own uses its variant.
fn sampled(call: &Call) -> Usage {
    let kind = |o: &Operand| match o {
        Operand::Weight(_) => Binding::Weight,
        Operand::Read(_) | Operand::Write(_) => Binding::Activation,
        Operand::Scalars => Binding::Scalars,
        Operand::Unused => Binding::Unused,
    };
    Usage { params: call.params.len(), bindings: call.operands.iter().map(kind).collect() }
}

/// Graphs of every family's networks, on even and odd sizes.
fn networks() -> Vec<(String, Graph)> {
    let mut graphs = Vec::new();
    for (name, text) in MANIFESTS {
        let manifest = Manifest::parse(text).unwrap();
        family(name, &Checkpoint::synthetic(&manifest, 0, Dtype::F16).unwrap(), &mut graphs);
    }
    if let Ok(model) = sagittal::embedded::checkpoint() {
        family("embedded", &model, &mut graphs);
    }
    for (preset, size) in [(Preset::Sd15, (64, 64)), (Preset::Sdxl, (128, 128))] {
        let options = unet::Options { size, tokens: 77, record: true, ..Default::default() };
        let graph = unet::build(&preset.config().unet, &options).unwrap();
        graphs.push((format!("{} {size:?}", preset.name()), graph));
    }
    graphs
}

fn family(name: &str, model: &Checkpoint, graphs: &mut Vec<(String, Graph)>) {
    let config = ModelConfig::infer(model).unwrap();
    for size in [(8, 8), (9, 13), (2, 1)] {
        for record in [false, true] {
            let trace = vec!["middle_block.0".to_owned(), "time_embed".to_owned()];
            let options = unet::Options { size, tokens: 77, record, trace, ..Default::default() };
            graphs.push((format!("{name} unet {size:?}"), unet::build(&config.unet, &options).unwrap()));
        }
        for perturbation in [Perturbation::Identity, Perturbation::BlurredQueries(Width::new(1.5))] {
            let options = unet::Options { size, tokens: 77, perturbation, ..Default::default() };
            graphs.push((
                format!("{name} unet {perturbation:?}"),
                unet::build(&config.unet, &options).unwrap(),
            ));
        }
        let (height, width) = size;
        let decoder = vae::decoder(&config.vae, height, width).unwrap();
        let encoder = vae::encoder(&config.vae, 8 * height, 8 * width).unwrap();
        graphs.extend([(format!("{name} decoder"), decoder), (format!("{name} encoder"), encoder)]);
    }
    for text in &config.text {
        graphs.extend(text_graphs(name, text));
    }
}

fn text_graphs(name: &str, text: &TextConfig) -> Vec<(String, Graph)> {
    let all = [(1, true, false), (2, true, true), (2, false, true)];
    all.map(|(skip, norm, pooled)| {
        let graph = clip::build(text, &clip::Options { skip, norm, pooled }).unwrap();
        (format!("{name} text"), graph)
    })
    .to_vec()
}

/// Operations in forms that fusion keeps out of the networks, with results for the next operation
/// and results to be read back.
fn every_operation() -> (String, Graph) {
    let mut g = Graph::new("");
    let x = g.input("x", Shape::new(5, 7, 64));
    for leaves in [false, true] {
        let mut results = Vec::new();
        for f in [Activation::Silu, Activation::Gelu, Activation::QuickGelu] {
            let norm = g.group_norm("norm", x, 1e-5).unwrap();
            results.push(g.activate("norm", f, norm));
        }
        results.push(g.group_norm("norm", x, 1e-5).unwrap());
        results.push(g.layer_norm("layer_norm", x));
        for operation in operations() {
            let operands = (operation.shapes)(g.shape(x));
            let operands: Vec<_> = operands.into_iter().map(|s| g.input("operand", s)).collect();
            results.push((operation.build)(&mut g, &operands).unwrap());
        }
        results.extend([1.5, f32::INFINITY].map(|sigma| g.blur("blur", x, sigma)));
        for heads in [1, 4, 16] {
            let qkv = g.linear_merged("qkv", x, &[("q", 64), ("k", 64), ("v", 64)], true).unwrap();
            for (causal, record) in [(false, false), (false, true), (true, false), (true, true)] {
                let (y, lse) = g.self_attention("attention", qkv, heads, causal, record).unwrap();
                results.push(y);
                if let Some(lse) = lse {
                    results.push(g.attention_columns("columns", qkv, lse, heads).unwrap());
                }
            }
            let kv = g.linear_merged("kv", x, &[("k", 64), ("v", 64)], false).unwrap();
            results.push(g.cross_attention("attention", x, kv, heads).unwrap());
        }
        for y in results {
            if leaves {
                g.output("result", y);
            } else if g.info(y).store == Store::Elem {
                g.trace("copy", y);
            }
        }
    }
    ("every operation".into(), g)
}

/// Products with every combination of epilogue inputs, wide and narrow.
fn every_product() -> (String, Graph) {
    let mut g = Graph::new("");
    let activations = [None, Some(Activation::Silu), Some(Activation::Gelu), Some(Activation::QuickGelu)];
    for channels in [4, 64] {
        let x = g.input("x", Shape::new(7, 5, channels));
        let vector = g.input("vector", Shape::tokens(1, channels));
        for (activation, bits) in activations.iter().flat_map(|a| (0..8).map(move |bits| (*a, bits))) {
            let [has_vector, has_residual, leaves] = [1, 2, 4].map(|bit| bits & bit != 0);
            let products = [
                g.linear("product", x, channels, false),
                g.linear("product", x, channels, true),
                g.conv1x1("product", x, channels),
                g.conv3x3("product", x, channels, 1, 1),
                g.conv3x3("product", x, channels, 2, 1),
                g.conv3x3("product", x, channels, 2, 0),
                g.conv3x3_doubled("product", x, (14, 10), channels),
                g.conv3x3_doubled("product", x, (13, 9), channels),
                g.conv3x3_doubled("product", x, (14, 9), channels),
                g.conv3x3_doubled("product", x, (13, 10), channels),
            ];
            for product in products {
                let mut y = product.unwrap();
                let residual = g.input("residual", g.shape(y));
                if has_vector {
                    y = g.add_vector("product", y, vector).unwrap();
                }
                if let Some(f) = activation {
                    y = g.activate("product", f, y);
                }
                if has_residual {
                    y = g.add("product", residual, y).unwrap();
                }
                if leaves {
                    g.output("result", y);
                }
            }
        }
    }
    ("every product".into(), g)
}

#[test]
fn every_variant_validates() {
    let mut by_kernel: BTreeMap<&str, usize> = BTreeMap::new();
    for c in CHECKED.iter() {
        *by_kernel.entry(c.variant.kernel.name()).or_default() += 1;
    }
    println!("{} variants: {by_kernel:?}", CHECKED.len());
}

/// Each file in `shaders` is a kernel or a core of some variant, or is shared: a kernel that no plan uses and that
/// has no samples would not be tested.
#[test]
fn every_shader_is_in_a_variant() {
    let shaders = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let files_in = |folder: std::path::PathBuf| std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let on_disk: BTreeSet<String> = files_in(shaders.clone())
        .flat_map(files_in)
        .map(|file| {
            let name = file.strip_prefix(&shaders).unwrap().with_extension("");
            name.to_str().unwrap().replace('\\', "/")
        })
        .collect();
    let of_variant = |c: &Checked| [Some(c.variant.kernel.file), c.variant.core.map(|core| core.file)];
    let of_variants = CHECKED.iter().flat_map(of_variant).flatten();
    let used: BTreeSet<String> =
        of_variants.chain(shader::SHARED.iter().copied()).map(|file| file.name.to_owned()).collect();
    assert_eq!(on_disk, used, "left: files in shaders, right: those of variants and shared ones");
}

/// Vulkan, Metal and Direct3D 12, with the options that naga takes for the oldest of each.
#[test]
fn every_variant_becomes_spirv_msl_and_hlsl() {
    let mut failures = Failures::default();
    for Checked { variant, shared, module, info, .. } in CHECKED.iter() {
        let spirv = spv::write_vec(module, info, &spv::Options::default(), None);
        failures.check(spirv.is_ok(), || format!("{variant}: SPIR-V: {}", spirv.unwrap_err()));
        // Subgroups of eight on a CPU are Vulkan's alone.
        if *shared {
            continue;
        }
        let side = variant.matrices().map(|matrices| matrices.side);
        // Metal's matrices are 8×8×8.
        if side != Some(16) {
            let lang_version = if side.is_some() { (2, 3) } else { msl::Options::default().lang_version };
            let options = msl::Options { lang_version, ..Default::default() };
            let metal = msl::write_string(module, info, &options, &msl::PipelineOptions::default());
            failures.check(metal.is_ok(), || format!("{variant}: MSL: {}", metal.unwrap_err()));
        }
        // Direct3D has none that naga knows.
        if side.is_some() {
            continue;
        }
        let mut text = String::new();
        let (options, pipeline) = (hlsl::Options::default(), hlsl::PipelineOptions::default());
        let direct3d = hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None);
        failures.check(direct3d.is_ok(), || format!("{variant}: HLSL: {}", direct3d.unwrap_err()));
    }
    failures.finish();
}

#[test]
fn every_variant_keeps_to_the_default_limits() {
    let mut failures = Failures::default();
    for Checked { variant, usage, module, .. } in CHECKED.iter() {
        let [entry] = module.entry_points.as_slice() else { panic!("{variant}: one entry point") };
        let invocations: u32 = entry.workgroup_size.iter().product();
        // Subgroups of 64 are of devices with larger workgroups.
        let lanes = variant.matrices().map_or(32, |matrices| matrices.lanes);
        failures.check(entry.name == "main" && invocations <= MAX_INVOCATIONS * lanes.max(32) / 32, || {
            format!("{variant}: {} has {invocations} invocations a workgroup", entry.name)
        });
        let in_space =
            |space: AddressSpace| module.global_variables.iter().filter(move |(_, g)| g.space == space);
        let memory: u32 = in_space(AddressSpace::WorkGroup)
            .map(|(_, g)| module.types[g.ty].inner.size(module.to_ctx()))
            .sum();
        // Devices with cooperative matrices are asked for more.
        let most = if variant.is_cooperative() { COOPERATIVE_BYTES } else { MAX_WORKGROUP_BYTES };
        failures.check(memory <= most, || format!("{variant}: {memory} bytes of workgroup memory"));
        let uniforms = in_space(AddressSpace::Uniform).count();
        let scalars = usage.bindings.iter().filter(|b| **b == Binding::Scalars).count();
        failures.check(uniforms == 1 + scalars, || format!("{variant}: {uniforms} uniforms"));
        let buffers =
            module.global_variables.iter().filter(|(_, g)| kind(g.space).starts_with("storage")).count();
        failures.check(buffers <= MAX_STORAGE_BUFFERS, || format!("{variant}: {buffers} storage buffers"));
    }
    failures.finish();
}

/// The Rust side's parameters are the shader's, field by field, and as long.
#[test]
fn parameters_agree() {
    let mut failures = Failures::default();
    for Checked { variant, usage, module, .. } in CHECKED.iter() {
        let (fields, span) = shader_params(module);
        let expected = described(variant.kernel.params);
        failures.check(fields == expected, || format!("{variant}: shader {fields:?}, Rust {expected:?}"));
        failures
            .check(span == usage.params, || format!("{variant}: shader {span} bytes, Rust {}", usage.params));
    }
    failures.finish();
}

/// Scalars of a step are as long as the Rust side's.
#[test]
fn scalars_agree() {
    let mut failures = Failures::default();
    for Checked { variant, module, .. } in CHECKED.iter() {
        let globals =
            bound(module).into_iter().map(|(number, global)| (number, &module.global_variables[global]));
        for (number, global) in globals.filter(|(_, g)| g.space == AddressSpace::Uniform) {
            let size = module.types[global.ty].inner.size(module.to_ctx());
            failures.check((number, size) == (1, 16 * latents::SCALARS as u32), || {
                format!("{variant}: {size} bytes of scalars at binding {number}")
            });
        }
    }
    failures.finish();
}

/// Bindings 1, 2, ... are those of the spec, and the Rust side puts there what it says. A device refuses a
/// buffer that is bound for reading and for writing at once, and activations share buffers: all are bound for
/// writing, but what is read and what is written is what the spec says, and what the Rust side does not bind is
/// not touched.
#[test]
fn bindings_agree() {
    let mut failures = Failures::default();
    for Checked { variant, usage, module, .. } in CHECKED.iter() {
        let wanted = variant.bindings();
        let expected: Vec<String> = (1..)
            .zip(&wanted)
            .map(|(number, (name, holds))| format!("{number} {name}: {}", declared(*holds)))
            .collect();
        let bound = bound(module);
        let found: Vec<String> = bound
            .iter()
            .map(|(number, global)| {
                let global = &module.global_variables[*global];
                format!("{number} {}: {}", global.name.as_deref().unwrap_or("?"), kind(global.space))
            })
            .collect();
        failures.check(found == expected, || format!("{variant}: shader {found:?}, spec {expected:?}"));
        let used = &usage.bindings;
        failures
            .check(used.len() == wanted.len(), || format!("{variant}: bound {used:?}, spec {expected:?}"));
        for ((name, holds), binding) in wanted.iter().zip(used) {
            let fits = match binding {
                Binding::Weight => *holds == Holds::Weight,
                Binding::Activation => matches!(holds, Holds::Input | Holds::Result | Holds::Updated),
                Binding::Scalars => *holds == Holds::Scalars,
                Binding::Unused => *holds != Holds::Scalars,
            };
            failures.check(fits, || format!("{variant}: {name} holds {binding:?}, spec {holds:?}"));
        }
        let uses = uses(module);
        for ((number, (name, holds)), binding) in (1..).zip(&wanted).zip(used) {
            let does = uses.get(&number).copied().unwrap_or(GlobalUse::empty());
            let [reads, writes] = [GlobalUse::READ, GlobalUse::WRITE].map(|kind| does.contains(kind));
            let unused = *binding == Binding::Unused;
            let fits = match holds {
                _ if unused && does.is_empty() => true,
                // Kernels for CPU drivers learn at run time which bindings there are.
                _ if unused && !variant.is_simd() => false,
                Holds::Weight | Holds::Input | Holds::Scalars => reads && !writes,
                Holds::Result => writes && !reads,
                Holds::Updated => reads && writes,
            };
            failures.check(fits, || {
                format!("{variant}: {name} is {holds:?} as {binding:?}, the shader: {does:?}")
            });
        }
    }
    failures.finish();
}

/// How a shader declares what holds that.
fn declared(holds: Holds) -> &'static str {
    match holds {
        Holds::Weight => "storage, read",
        Holds::Input | Holds::Result | Holds::Updated => "storage, read_write",
        Holds::Scalars => "uniform",
    }
}

fn kind(space: AddressSpace) -> &'static str {
    match space {
        AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => "storage, read_write",
        AddressSpace::Storage { .. } => "storage, read",
        AddressSpace::Uniform => "uniform",
        _ => "another kind",
    }
}

/// `offset name: type` of each field.
fn described(fields: &[Field]) -> Vec<String> {
    fields.iter().map(|f| format!("{} {}: {}", f.offset, f.name, f.scalar)).collect()
}

/// Fields and bytes of the shader's parameters.
fn shader_params(module: &Module) -> (Vec<String>, usize) {
    let at_zero = |g: &GlobalVariable| g.binding.as_ref().is_some_and(|b| b.binding == 0);
    let params = module.global_variables.iter().find(|(_, g)| g.space == AddressSpace::Uniform && at_zero(g));
    let (_, params) = params.expect("a uniform at binding 0");
    let TypeInner::Struct { members, span } = &module.types[params.ty].inner else { panic!("a struct") };
    let field = |m: &naga::StructMember| {
        let scalar = match module.types[m.ty].inner {
            TypeInner::Scalar(naga::Scalar::U32) => "u32",
            TypeInner::Scalar(naga::Scalar::F32) => "f32",
            _ => "another type",
        };
        format!("{} {}: {scalar}", m.offset, m.name.as_deref().unwrap_or("?"))
    };
    (members.iter().map(field).collect(), *span as usize)
}

/// What is bound beside the parameters, by number.
fn bound(module: &Module) -> Vec<(u32, Handle<GlobalVariable>)> {
    let globals = module.global_variables.iter();
    let mut bound: Vec<_> = globals
        .filter_map(|(handle, g)| g.binding.as_ref().map(|b| (b.binding, handle)))
        .filter(|(number, _)| *number > 0)
        .collect();
    bound.sort_unstable_by_key(|(number, _)| *number);
    bound
}
