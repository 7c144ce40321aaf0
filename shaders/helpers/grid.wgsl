// Elementwise kernels: one invocation a quad of the result.

struct Params {
    total: u32,   // quads of the result, all rows
    width: u32,   // invocations in one y of the grid
    a4: u32,      // quads of a position in the first operand
    b4: u32,      // quads of a position in the second
    positions: u32,
    first4: u32,  // channels: the first quad that is taken
}

@group(0) @binding(0) var<uniform> p: Params;
