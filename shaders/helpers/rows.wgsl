// The rows of a network call, and where each is in the latents: two vec4s a row,
// (image, first line, first column, -), (first quad of its prediction, first of its column sums, -, -).
// All rows of a call have the same area of p.cells cells.
#import helpers/scalars

@group(0) @binding(2) var<storage, read_write> table: array<vec4<u32>>;

fn row_in_table(row: u32) -> u32 {
    return p.table_first + (2u * row);
}

// The latent's first quad at a cell of a row's area.
fn latent_at(row: u32, cell: u32) -> u32 {
    let place = table[row_in_table(row)];
    let line = place.y + (cell / p.area_width);
    let column = place.z + (cell % p.area_width);
    let at = (place.x * p.latent_cells) + (line * p.latent_width) + column;
    return p.latent_first + (at * p.c4);
}
