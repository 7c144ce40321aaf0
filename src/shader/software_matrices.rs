//! Shaders with cooperative matrices for devices that have none, or others: `helpers/software_matrices.wgsl` in place
//! of the language's own types and functions. It is slow, and what makes those kernels testable anywhere.

use std::collections::BTreeSet;

use super::files;
use super::text::{helper, replaced};
use crate::kernels::Variant;
use crate::{Error, Result};

/// What a shader with cooperative matrices says, and what replaces it. Its subgroups may have other widths here: all of a
/// workgroup do together what each of them does by itself.
const WORDS: [(&str, &str); 5] = [
    ("enable wgpu_cooperative_matrix;\n", ""),
    ("coopMultiplyAdd", "multiply_add"),
    ("subgroupBarrier", "workgroupBarrier"),
    ("subgroupAny", "any_of_workgroup"),
    (START, START_OF_LANE),
];

/// The head of every such shader's `main`, its last line.
const START: &str = "@builtin(local_invocation_index) t: u32) {\n";
const START_OF_LANE: &str = "@builtin(local_invocation_index) t: u32) {
    begin_matrices(t, wid.x >> 31u);
";

/// The text of `variant`, which is `text`, with its cooperative matrices written out.
pub fn write_out(variant: &Variant, text: String) -> Result<String> {
    let text = replaced(text, &WORDS);
    // `alias MatrixA = coop_mat…;` and the like: they are structures here.
    let text: String = text.split_inclusive('\n').filter(|line| !line.starts_with("alias Matrix")).collect();
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
    helper(&files::SOFTWARE_MATRICES, variant, &mut written)?;
    let mut rows = String::new();
    for (number, access) in functions.iter().enumerate() {
        written += &access.function(number)?;
        if let Some(row) = access.row_of() {
            rows += &format!("    if b.array == {number}u {{\n{row}    }}\n");
        }
    }
    written += &format!(
        "fn row_of(b: MatrixB, k: u32) -> array<vec4<f32>, VECTORS> {{
    var row = array<vec4<f32>, VECTORS>();\n{rows}    return row;\n}}\n"
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
                "    for (var i = 0u; i < SIDE / 4u; i++) {{
        m.row[i] = vec4<f32>({array}[at + matrix_row * stride + i]);
    }}"
            ),
            ("coopLoadT", "MatrixC") => format!(
                "    for (var v = 0u; v < VECTORS; v++) {{
        m.row[v] = {array}[at + matrix_row * stride + matrix_first + v];
    }}"
            ),
            ("coopStoreT", "MatrixC") => {
                return Ok(format!(
                    "fn {name}(m: MatrixC, at: u32, stride: u32) {{
    for (var v = 0u; v < VECTORS; v++) {{
        {array}[at + matrix_row * stride + matrix_first + v] = m.row[v];
    }}
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

    /// Of an access to B, what brings this lane's part of row `k` into `row`.
    fn row_of(&self) -> Option<String> {
        let array = self.array;
        match (self.operation, self.kind) {
            ("coopLoadT", "MatrixB") => Some(format!(
                "        for (var v = 0u; v < VECTORS; v++) {{
            row[v] = vec4<f32>({array}[b.at + k * b.stride + matrix_first + v]);
        }}\n"
            )),
            // By columns: vector i of a column has rows 4·i to 4·i + 3.
            ("coopLoad", "MatrixB") => Some(format!(
                "        for (var n = 0u; n < 4u * VECTORS; n++) {{
            let column = 4u * matrix_first + n;
            row[n / 4u][n % 4u] = f32({array}[b.at + column * b.stride + k / 4u][k % 4u]);
        }}\n"
            )),
            _ => None,
        }
    }
}
