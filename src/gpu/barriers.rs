//! Makes `subgroupBarrier` order accesses to workgroup memory. naga writes it into SPIR-V with the semantics of
//! subgroup memory alone, which Vulkan ignores: invocations wait, but a driver may move accesses to workgroup memory
//! across the barrier. Kernels pass matrices through workgroup memory within a subgroup, so the barrier gets the
//! semantics of workgroup memory too.
//!
//! By the letter of Vulkan's memory model, which naga declares for cooperative matrices, this is still not enough, for
//! any barrier: accesses would have to be marked as non-private (wgpu's issue 8805).

use wgpu::naga::{Barrier, Block, Module, Statement, front::wgsl::ParseError};

/// Parses `text`, and makes its subgroup barriers order workgroup memory. Only for Vulkan: in other shader languages
/// this would add a barrier of the workgroup.
pub fn module(text: &str) -> Result<Module, ParseError> {
    let mut module = wgpu::naga::front::wgsl::parse_str(text)?;
    for (_, function) in module.functions.iter_mut() {
        order(&mut function.body);
    }
    for entry in &mut module.entry_points {
        order(&mut entry.function.body);
    }
    Ok(module)
}

fn order(block: &mut Block) {
    for statement in block.iter_mut() {
        match statement {
            Statement::ControlBarrier(of) if of.contains(Barrier::SUB_GROUP) => *of |= Barrier::WORK_GROUP,
            Statement::Block(inner) => order(inner),
            Statement::If { accept, reject, .. } => [accept, reject].into_iter().for_each(order),
            Statement::Switch { cases, .. } => cases.iter_mut().for_each(|c| order(&mut c.body)),
            Statement::Loop { body, continuing, .. } => [body, continuing].into_iter().for_each(order),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_every_block_a_subgroup_barrier_orders_workgroup_memory() {
        let text = "var<workgroup> w: array<u32, 32>;
            fn meet() { subgroupBarrier(); }
            @compute @workgroup_size(32)
            fn main(@builtin(local_invocation_index) t: u32) {
                w[t] = t;
                meet();
                if w[0] == 0u { subgroupBarrier(); } else { { subgroupBarrier(); } }
                switch w[1] { case 1u: { subgroupBarrier(); } default: {} }
                for (var i = 0u; i < 2u; i++) { subgroupBarrier(); }
                workgroupBarrier();
            }";
        let module = format!("{:?}", module(text).unwrap());
        let barriers = |flags| module.matches(&format!("ControlBarrier(Barrier({flags}))")).count();
        assert_eq!(
            ["WORK_GROUP | SUB_GROUP", "WORK_GROUP", "SUB_GROUP"].map(barriers),
            [5, 1, 0],
            "{module}"
        );
    }
}
