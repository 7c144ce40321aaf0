// Cooperative matrices of SIDE×SIDE×SIDE, f16 in and f32 out, of subgroups of LANES. Kernels count in blocks of
// 16×16, of FOLD×FOLD matrices.
#if SIDE_8
alias MatrixA = coop_mat8x8<f16, A>;
alias MatrixB = coop_mat8x8<f16, B>;
alias MatrixC = coop_mat8x8<f32, C>;
#else
alias MatrixA = coop_mat16x16<f16, A>;
alias MatrixB = coop_mat16x16<f16, B>;
alias MatrixC = coop_mat16x16<f32, C>;
#endif
