// How gemm_cooperative brings steps of x and w into its tiles, through registers: the next one while this one is
// multiplied.

// A step on its way to workgroup memory. Channels and columns in eights.
struct Walk {
    x: array<wide, LOADS_X>,            // LOADS of an invocation in a step
    w: array<wide, LOADS_W>,
    place: array<vec3<i32>, LOADS_X>,   // of this invocation's positions,
    base: array<i32, LOADS_X>,          // at this tap, or below zero outside
    at: array<u32, LOADS_W>,            // of its weights
    tap: u32,
    c0: u32,                            // first channel of the step
}

// Whether channel c of a position is not the zero around x.
fn inside(base: i32, c: u32) -> bool {
    return (!PADDED || base >= 0) && (FULL_C || c < p.c4 / 2u);
}

// Brings a step into registers: of x, eight channels of every (THREADS / STEP8)th position. No load is
// behind a branch, which would make it wait for the one before.
fn fetch(walk: ptr<function, Walk>, t: u32) {
    let c = (*walk).c0 + t % STEP8;
    #repeat i LOADS_X
        (*walk).x[i] = x[select(0u, u32((*walk).base[i]) + c, inside((*walk).base[i], c))];
    #end
    // Channels past the last one, where x is zero, read what comes next, at the end of w its last eight.
    #repeat i LOADS_W
        (*walk).w[i] = w[select(min((*walk).at[i], ALL_TAPS * p.c4 * p.n4 * 2u - 1u), (*walk).at[i], FULL_C)];
    #end
}

// From registers to the tiles.
fn put(walk: ptr<function, Walk>, t: u32) {
    #repeat i LOADS_X
        let to = (t / STEP8 + i * (THREADS / STEP8)) * X_ROW + t % STEP8 * 2u;
        let v = select(wide(), (*walk).x[i], inside((*walk).base[i], (*walk).c0 + t % STEP8));
        tile_x[to] = lower(v);
        tile_x[to + 1u] = upper(v);
    #end
    #repeat i LOADS_W
        let at = t + i * THREADS;
        if W_EIGHTS % THREADS == 0u || at < W_EIGHTS {
            // Row at / TILE_N8, whose length is one eight more.
            let to = 2u * (at + at / TILE_N8);
            tile_w[to] = lower((*walk).w[i]);
            tile_w[to + 1u] = upper((*walk).w[i]);
        }
    #end
}

// On to the next step.
fn advance(walk: ptr<function, Walk>) {
    (*walk).c0 += STEP8;
    #repeat i LOADS_W
        (*walk).at[i] += STEP / 2u * p.n4;
    #end
    if (*walk).c0 >= p.c4 / 2u {
        #repeat i LOADS_W
            (*walk).at[i] -= ((*walk).c0 - p.c4 / 2u) * 4u * p.n4;
        #end
        (*walk).c0 = 0u;
        (*walk).tap += 1u;
        #repeat i LOADS_X
            (*walk).base[i] = x_at((*walk).place[i], (*walk).tap) >> 1u;
        #end
    }
}

// Keeps a compiler from moving loads to before or behind all products: a store that never comes to pass.
fn hold(walk: ptr<function, Walk>) {
    if (*walk).tap == 0xffffffffu {
        tile_w[0] = vec4<f16>();
    }
}
