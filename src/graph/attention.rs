//! Attention on merged projections, and the recorded column sums.

use super::{Graph, Heads, Op, Shape, Store, Tensor};
use crate::Result;

impl Graph {
    /// Self-attention on a merged Q‖K‖V projection. Returns the result and, for
    /// [`Graph::attention_columns`], the log-sum-exp if `record` is set.
    pub fn self_attention(
        &mut self,
        path: &str,
        qkv: Tensor,
        heads: usize,
        causal: bool,
        record: bool,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let s = self.shape(qkv);
        let c = s.channels / 3;
        let heads = self.heads(path, c, heads, [0, c, 2 * c])?;
        Ok(self.attention(path, &[qkv, qkv], (heads, causal), Shape { channels: c, ..s }, record))
    }

    /// Cross-attention of queries to a merged K‖V projection of another sequence.
    pub fn cross_attention(&mut self, path: &str, q: Tensor, kv: Tensor, heads: usize) -> Result<Tensor> {
        let s = self.shape(q);
        let c = s.channels;
        if self.shape(kv).channels / 2 != c {
            let want = format!("keys and values of {c} channels each");
            return Err(self.misfit(path, &want, self.shape(kv).to_string()));
        }
        let heads = self.heads(path, c, heads, [0, 0, c])?;
        Ok(self.attention(path, &[q, kv], (heads, false), s, false).0)
    }

    /// [`self_attention`](Self::self_attention) with the queries `q` instead of those of `qkv`.
    pub fn self_attention_of(&mut self, path: &str, q: Tensor, qkv: Tensor, heads: usize) -> Result<Tensor> {
        let (s, c) = (self.shape(q), self.shape(q).channels);
        let merged = self.shape(qkv);
        if merged != (Shape { channels: c.saturating_mul(3), ..s }) {
            return Err(self.misfit(path, &format!("queries of a third of {merged}"), s.to_string()));
        }
        let heads = self.heads(path, c, heads, [0, c, c.saturating_mul(2)])?;
        Ok(self.attention(path, &[q, qkv], (heads, false), s, false).0)
    }

    /// Column sums of the attention that `qkv` and `lse` describe: how much attention each
    /// position receives, mean over heads, summed over queries. Shape `[positions]`, mean 1.
    pub fn attention_columns(
        &mut self,
        path: &str,
        qkv: Tensor,
        lse: Tensor,
        heads: usize,
    ) -> Result<Tensor> {
        let s = self.shape(qkv);
        let c = s.channels / 3;
        let heads = self.heads(path, c, heads, [0, c, 2 * c])?;
        let out = self.tensor(path, Shape { channels: 1, ..s }, Store::Plain);
        self.push(path, Op::AttentionColumns { heads }, &[qkv, lse], vec![out]);
        Ok(out)
    }

    fn heads(&self, path: &str, channels: usize, heads: usize, offsets: [usize; 3]) -> Result<Heads> {
        let fits = |width: usize| width > 0 && width.is_multiple_of(4);
        if heads == 0 || !channels.is_multiple_of(heads) || !fits(channels / heads) {
            let want = format!("{heads} heads of a multiple of 4 channels each");
            return Err(self.misfit(path, &want, format!("{channels} channels")));
        }
        Ok(Heads { heads, dim: channels / heads, offsets })
    }

    fn attention(
        &mut self,
        path: &str,
        inputs: &[Tensor],
        (heads, causal): (Heads, bool),
        shape: Shape,
        record: bool,
    ) -> (Tensor, Option<Tensor>) {
        let lse_shape = Shape { channels: heads.heads, ..shape };
        let out = self.tensor(path, shape, Store::Elem);
        let lse = record.then(|| self.tensor(path, lse_shape, Store::Plain));
        let op = Op::Attention { heads, causal };
        self.push(path, op, inputs, [out].into_iter().chain(lse).collect());
        (out, lse)
    }
}
