//! The limits of plans: tensors must belong to the graph, their sizes must fit the counters of kernels, and the device
//! must be able to bind them.

use super::PlanOptions;
use crate::graph::{Graph, Shape, Store, Tensor};
use crate::kernels::DeviceProfile;
use crate::kernels::{Call, Operand, Precision};
use crate::{Error, ErrorKind, Remedy, Result};

/// Kernels count the quads (four channels) of a binding in 32 bits.
const MOST_BOUND: u64 = 16 << 30;
/// Positions of a row, and rows: far more than any picture has, so that sums of a few fit into 32 bits.
const MOST_POSITIONS: usize = 1 << 30;
/// Channels of a tensor.
const MOST_CHANNELS: usize = 1 << 24;
/// Bytes of a quad in f32: offsets in tensors are multiples of quads.
const LEAST_ALIGNMENT: u64 = 16;
/// With more, the sum of a tensor's bytes and the alignment would not fit into 64 bits.
const MOST_ALIGNMENT: u64 = 1 << 32;

/// Checks graph and options; returns the options with a binding size that kernels can count.
pub(super) fn checked(graph: &Graph, options: &PlanOptions) -> Result<PlanOptions> {
    let device = &options.device;
    if options.rows == 0 || options.rows > MOST_POSITIONS {
        return Err(Error::usage("no plan is possible for this number of rows")
            .expected(format!("1 to {MOST_POSITIONS} rows"))
            .found(options.rows.to_string()));
    }
    let alignment = device.alignment;
    if !alignment.is_power_of_two() || !(LEAST_ALIGNMENT..=MOST_ALIGNMENT).contains(&alignment) {
        return Err(Error::usage("the alignment of bindings is not valid")
            .expected(format!("a power of two of {LEAST_ALIGNMENT} bytes or more"))
            .found(alignment.to_string()));
    }
    for node in graph.nodes() {
        node.inputs.iter().chain(&node.outputs).try_for_each(|t| own(graph, &node.path, *t))?;
    }
    for (name, t) in graph.inputs().iter().chain(graph.outputs()) {
        own(graph, name, *t)?;
    }
    for (name, t) in graph.outputs() {
        if graph.info(*t).slice.is_some() {
            return Err(Error::usage("a result is a slice of another tensor").at(name));
        }
    }
    for t in (0..graph.tensor_count()).map(Tensor) {
        let (info, Shape { height, width, channels }) = (graph.info(t), graph.shape(t));
        let counts = |n: usize, most: usize| (1..=most).contains(&n);
        let positions = info.shape.positions();
        if ![height, width, positions].into_iter().all(|n| counts(n, MOST_POSITIONS))
            || !counts(channels, MOST_CHANNELS)
        {
            return Err(Error::usage("no plan is possible for a tensor of this shape")
                .at(&info.path)
                .expected(format!("1 to {MOST_POSITIONS} positions of 1 to {MOST_CHANNELS} channels"))
                .found(info.shape.to_string()));
        }
    }
    let device = DeviceProfile { max_binding: device.max_binding.min(MOST_BOUND), ..device.clone() };
    Ok(PlanOptions { device, ..options.clone() })
}

/// Checks that a handle is one of this graph: handles are numbers, and those of another graph may not exist here.
fn own(graph: &Graph, at: &str, tensor: Tensor) -> Result<()> {
    match tensor.0 < graph.tensor_count() {
        true => Ok(()),
        false => Err(Error::usage("a tensor of another graph").at(at)),
    }
}

/// Returns an error for the first of `buffers` (name and bytes) that the device cannot bind. A tensor with slices is
/// bound slice by slice, but must fit into one buffer.
pub(super) fn buffers(graph: &Graph, buffers: &[(String, u64)], options: &PlanOptions) -> Result<()> {
    let device = &options.device;
    let sliced = graph.sliced();
    for (buf, (name, bytes)) in buffers.iter().enumerate() {
        if sliced.contains(&Tensor(buf)) {
            if *bytes > device.max_buffer {
                return Err(refused(name, "a buffer of this device", *bytes, device.max_buffer, options));
            }
        } else if *bytes > device.max_binding {
            return Err(refused(name, BINDING, *bytes, device.max_binding, options));
        }
    }
    Ok(())
}

const BINDING: &str = "this device can bind";

/// The same for temporaries of the `calls`, and for their bindings. `buffers` are name and bytes of each, `stores` how
/// each stores a tensor of the graph, None for temporaries.
pub(super) fn calls(
    calls: &[Call],
    buffers: &[(String, u64)],
    stores: &[Option<Store>],
    options: &PlanOptions,
) -> Result<()> {
    let most = options.device.max_binding;
    let temporaries = buffers.iter().zip(stores).filter(|(_, store)| store.is_none());
    if let Some(((name, bytes), _)) = temporaries.into_iter().find(|((_, bytes), _)| *bytes > most) {
        return Err(refused(name, BINDING, *bytes, most, options));
    }
    for operand in calls.iter().flat_map(|c| &c.operands) {
        match operand {
            Operand::Read(s) | Operand::Write(s) if s.bytes > most => {
                let name = buffers.get(s.buf.0).map_or("", |(name, _)| name);
                return Err(refused(name, BINDING, s.bytes, most, options));
            }
            _ => {}
        }
    }
    Ok(())
}

fn refused(name: &str, what: &str, bytes: u64, most: u64, options: &PlanOptions) -> Error {
    let error = Error::new(ErrorKind::Memory, format!("a tensor is larger than {what}"))
        .at(name)
        .expected(format!("at most {most} bytes"))
        .found(format!("{bytes} bytes for {} rows in {}", options.rows, options.precision().name()))
        .hint("draw a smaller picture");
    match options.precision() {
        Precision::F32 => error.remedy(Remedy::UseF16),
        Precision::F16 => error,
    }
}
