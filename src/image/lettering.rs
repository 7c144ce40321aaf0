//! Small letters on pictures, for labels of grids.

use font8x8::{BASIC_FONTS, GREEK_FONTS, HIRAGANA_FONTS, LATIN_FONTS, UnicodeFonts};

use super::Picture;

/// Columns and rows of a letter.
const LETTER: usize = 8;
/// From one line to the next, in the letter's own pixels.
const LINE: usize = 10;

/// Pixels that `letters` letters take in a line, each pixel of a letter drawn as `scale`×`scale`.
pub fn width(letters: usize, scale: usize) -> usize {
    letters.saturating_mul(LETTER).saturating_mul(scale)
}

/// Pixels that `lines` lines take.
pub fn height(lines: usize, scale: usize) -> usize {
    lines.saturating_mul(LINE).saturating_mul(scale)
}

/// Draws a line of text with its upper left corner at column and row `at`. What reaches beyond the
/// picture is left out; letters that the font lacks (it has Latin, Greek and Hiragana) are boxes. On a picture that
/// does not pass its [check](Picture::check) nothing is drawn.
pub fn draw(picture: &mut Picture, at: (usize, usize), text: &str, scale: usize, colour: [u8; 3]) {
    if picture.check().is_err() {
        return;
    }
    for (i, letter) in text.chars().enumerate() {
        let left = at.0.saturating_add(width(i, scale));
        for (y, bits) in shape(letter).iter().enumerate() {
            for x in (0..LETTER).filter(|x| bits >> x & 1 == 1) {
                let place = |from: usize, pixels: usize| from.saturating_add(pixels.saturating_mul(scale));
                fill(picture, (place(left, x), place(at.1, y)), scale, colour);
            }
        }
    }
}

/// `text` in lines of at most `letters` letters, cut at spaces where there are any.
pub fn wrapped(text: &str, letters: usize, most_lines: usize) -> Vec<String> {
    let letters = letters.max(1);
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut rest: Vec<char> = word.chars().collect();
        while let Some(line) = lines.last_mut() {
            let used = line.chars().count();
            let between = usize::from(used > 0);
            if used + between + rest.len() <= letters {
                if between == 1 {
                    line.push(' ');
                }
                line.extend(rest);
                break;
            }
            if used == 0 {
                line.extend(rest.drain(..letters));
            }
            lines.push(String::new());
        }
    }
    if lines.len() > most_lines {
        lines.truncate(most_lines.max(1));
        if let Some(last) = lines.last_mut() {
            *last = last.chars().take(letters.saturating_sub(1)).chain(['~']).collect();
        }
    }
    lines
}

/// A letter's rows; the lowest bit is the leftmost column.
fn shape(letter: char) -> [u8; LETTER] {
    const BOX: [u8; LETTER] = [0x7f, 0x41, 0x41, 0x41, 0x41, 0x41, 0x7f, 0];
    let fonts: [&dyn UnicodeFonts; 4] = [&BASIC_FONTS, &LATIN_FONTS, &GREEK_FONTS, &HIRAGANA_FONTS];
    fonts.iter().find_map(|font| font.get(letter)).unwrap_or(BOX)
}

fn fill(picture: &mut Picture, (left, top): (usize, usize), side: usize, colour: [u8; 3]) {
    for y in top..top.saturating_add(side).min(picture.height) {
        for x in left..left.saturating_add(side).min(picture.width) {
            picture.rgb[(y * picture.width + x) * 3..][..3].copy_from_slice(&colour);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_at_spaces() {
        assert_eq!(wrapped("a fox in  the snow", 8, 9), ["a fox in", "the snow"]);
        assert_eq!(wrapped("lighthouse", 4, 9), ["ligh", "thou", "se"]);
        assert_eq!(wrapped("a lighthouse", 4, 2), ["a", "lig~"]);
        assert_eq!(wrapped("", 4, 2), [""]);
    }

    #[test]
    fn letters_are_drawn_and_cut_at_the_edge() {
        let mut picture = Picture { width: 20, height: 9, rgb: vec![255; 20 * 9 * 3] };
        draw(&mut picture, (2, 1), "l語", 1, [0, 0, 0]);
        draw(&mut picture, (14, 7), "XXX", 3, [9, 9, 9]);
        let dark = |x: usize, y: usize| picture.rgb[(y * 20 + x) * 3] < 255;
        assert!((0..8).any(|y| (2..10).any(|x| dark(x, y))), "a letter");
        assert!(dark(10, 1) && dark(16, 1), "a box");
    }
}
