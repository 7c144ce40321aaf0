// Operands of cooperative matrices, read sixteen bytes at a time: widths are multiples of eight.
struct Eight {
    lo: vec4<f16>,
    hi: vec4<f16>,
}

alias wide = Eight;
