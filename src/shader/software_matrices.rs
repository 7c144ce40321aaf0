//! Shaders with cooperative matrices for devices that have none: `helpers/software_matrices.wgsl` in place
//! of the language's own types and functions. It is slow, and what makes those kernels testable anywhere.

use std::collections::BTreeSet;

use super::files;
use super::text::{include, replaced};
use crate::{Error, Result};

/// What a shader with cooperative matrices says, and what replaces it. Its subgroups of 32 may be more here:
/// all of a workgroup do together what each of them does by itself.
const WORDS: [(&str, &str); 8] = [
    ("enable wgpu_cooperative_matrix;\n", ""),
    ("coop_mat16x16<f16, A>", "MatrixA"),
    ("coop_mat16x16<f16, B>", "MatrixB"),
    ("coop_mat16x16<f32, C>", "MatrixC"),
    ("coopMultiplyAdd", "multiply_add"),
    ("subgroupBarrier", "workgroupBarrier"),
    ("subgroupAny", "any_of_workgroup"),
    (START, START_OF_LANE),
];

/// The head of every such shader's `main`, its last line.
const START: &str = "@builtin(local_invocation_index) t: u32) {\n";
const START_OF_LANE: &str = "@builtin(local_invocation_index) t: u32) {
    matrix_row = t % 32u / 2u;
    matrix_half = t % 2u;
    matrix_depth = 16u + (wid.x >> 31u);
";

/// The text of a shader with its cooperative matrices written out.
pub fn write_out(text: String) -> Result<String> {
    let text = replaced(text, &WORDS);
    let mut written = String::with_capacity(2 * text.len());
    let mut functions = BTreeSet::new();
    let mut rest = text.as_str();
    // `coopLoadT<KIND>(&ARRAY[INDEX], STRIDE)` becomes `coopLoadT_KIND_ARRAY(INDEX, STRIDE)`, and
    // `coopStoreT(MATRIX, &ARRAY[INDEX], STRIDE)` likewise `coopStoreT_MatrixC_ARRAY(MATRIX, INDEX, STRIDE)`.
    while let Some(at) = ["coopLoad", "coopStore"].iter().filter_map(|name| rest.find(name)).min() {
        let (before, access) = rest.split_at(at);
        let bad = || Error::internal(format!("not an access to a matrix: {:.60}", access));
        let (head, behind) = access.split_once('&').ok_or_else(bad)?;
        let (array, behind) = behind.split_once('[').ok_or_else(bad)?;
        let (index, behind) = behind.split_at(length_inside(behind).ok_or_else(bad)?);
        let (function, arguments) = head.split_once('(').ok_or_else(bad)?;
        let (operation, kind) = match function.split_once('<') {
            Some((operation, kind)) => (operation, kind.trim_end_matches('>')),
            None => (function, "MatrixC"),
        };
        let access = Access { operation, kind, array };
        written += &format!("{before}{}({arguments}{index}", access.name());
        functions.insert(access);
        rest = &behind[1..];
    }
    written += rest;
    written.push('\n');
    include(&files::SOFTWARE_MATRICES, &[], &mut written)?;
    let mut rows = String::new();
    for (number, access) in functions.iter().enumerate() {
        written += &access.function(number)?;
        if let Some(row) = access.row_of() {
            rows += &format!("    if b.array == {number}u {{\n{row}    }}\n");
        }
    }
    written += &format!(
        "fn row_of(b: MatrixB, k: u32) -> array<vec4<f32>, 2> {{
    var row = array<vec4<f32>, 2>();\n{rows}    return row;\n}}\n"
    );
    Ok(written)
}

/// Bytes up to the bracket that closes one which was opened before `text`.
fn length_inside(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.find(|c| {
        match c {
            '[' => depth += 1,
            ']' if depth == 0 => return true,
            ']' => depth -= 1,
            _ => {}
        }
        false
    })
}

/// How a shader reads or writes matrices of a kind in an array of vectors.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Access<'a> {
    operation: &'a str,
    kind: &'a str,
    array: &'a str,
}

impl Access<'_> {
    fn name(&self) -> String {
        format!("{}_{}_{}", self.operation, self.kind, self.array)
    }

    /// The function's text; `number` is the access's among those of a shader.
    fn function(&self, number: usize) -> Result<String> {
        let (name, array, kind) = (self.name(), self.array, self.kind);
        let body = match (self.operation, self.kind) {
            ("coopLoadT" | "coopLoad", "MatrixB") => format!("    m = MatrixB({number}u, at, stride);"),
            ("coopLoadT", "MatrixA") => format!(
                "    for (var i = 0u; i < 4u; i++) {{
        m.row[i] = vec4<f32>({array}[at + matrix_row * stride + i]);
    }}"
            ),
            ("coopLoadT", "MatrixC") => format!(
                "    m.row[0] = {array}[at + matrix_row * stride + 2u * matrix_half];
    m.row[1] = {array}[at + matrix_row * stride + 2u * matrix_half + 1u];"
            ),
            ("coopStoreT", "MatrixC") => {
                return Ok(format!(
                    "fn {name}(m: MatrixC, at: u32, stride: u32) {{
    {array}[at + matrix_row * stride + 2u * matrix_half] = m.row[0];
    {array}[at + matrix_row * stride + 2u * matrix_half + 1u] = m.row[1];
}}
"
                ));
            }
            _ => return Err(Error::internal(format!("no matrices in software for {name}"))),
        };
        Ok(format!(
            "fn {name}(at: u32, stride: u32) -> {kind} {{\n    var m = {kind}();\n{body}\n    return m;\n}}\n"
        ))
    }

    /// Of an access to B, what brings this lane's half of row `k` into `row`.
    fn row_of(&self) -> Option<String> {
        let array = self.array;
        match (self.operation, self.kind) {
            ("coopLoadT", "MatrixB") => Some(format!(
                "        row[0] = vec4<f32>({array}[b.at + k * b.stride + 2u * matrix_half]);
        row[1] = vec4<f32>({array}[b.at + k * b.stride + 2u * matrix_half + 1u]);\n"
            )),
            // By columns: vector i of a column has rows 4·i to 4·i + 3.
            ("coopLoad", "MatrixB") => Some(format!(
                "        for (var n = 0u; n < 8u; n++) {{
            row[n / 4u][n % 4u] = f32({array}[b.at + (8u * matrix_half + n) * b.stride + k / 4u][k % 4u]);
        }}\n"
            )),
            _ => None,
        }
    }
}
