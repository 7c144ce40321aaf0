//! The weights of an integration rule, from its nodes and moments.

/// The weights `w` at `nodes` with the given moments, one for each node:
/// `Σ_j w_j·node_j^p = moments_p` (Björck and Pereyra 1970). Nodes must differ.
pub(super) fn weights(nodes: &[f64], moments: Vec<f64>) -> Vec<f64> {
    let (n, mut w) = (nodes.len(), moments);
    for k in 1..n {
        for i in (k..n).rev() {
            w[i] -= nodes[k - 1] * w[i - 1];
        }
    }
    for k in (1..n).rev() {
        for i in k..n {
            w[i] /= nodes[i] - nodes[i - k];
        }
        for i in k..n {
            w[i - 1] -= w[i];
        }
    }
    w
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_met() {
        let nodes = [-2.5, -1.0, 0.5, 3.0];
        for count in 1..=4 {
            let moments: Vec<f64> = (0..count).map(|p| 1.0 / (p as f64 + 2.0) - 0.4).collect();
            let w = weights(&nodes[..count], moments.clone());
            for (p, moment) in moments.iter().enumerate() {
                let sum: f64 = w.iter().zip(nodes).map(|(w, node)| w * node.powi(p as i32)).sum();
                assert!((sum - moment).abs() < 1e-13, "{count} {p} {sum} {moment}");
            }
        }
    }
}
