//! What ComfyUI's frontend replaces in prompts before a workflow is run.

/// A prompt as the frontend sends it: without comments (`//` to the end of a line, `/* … */`), and one
/// of `{red|green|blue}` chosen. The choice is made by the text, so that a workflow always gives the
/// same picture, where the frontend rolls dice. `\{`, `\}` and `\|` are plain.
pub(super) fn dynamic(prompt: &str) -> String {
    let text = without_comments(prompt);
    // FNV-1a, moved on by a splitmix step for each choice.
    let mut dice =
        text.bytes().fold(0xCBF2_9CE4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::new();
    let mut at = 0;
    while at < chars.len() {
        match (chars[at], group(&chars, at)) {
            ('\\', _) if matches!(chars.get(at + 1), Some('{' | '}')) => {
                out.push(chars[at + 1]);
                at += 2;
            }
            ('{', Some((choices, end))) => {
                dice = dice.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mut z = dice;
                z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                z ^= z >> 31;
                let choice = &choices[(z % choices.len() as u64) as usize];
                out.push_str(choice);
                at = end;
            }
            (c, _) => {
                out.push(c);
                at += 1;
            }
        }
    }
    out
}

/// The choices in the braces at `at`, and where they end. Braces inside choices are not looked into:
/// they are taken literally, as far as the first `}`.
fn group(chars: &[char], at: usize) -> Option<(Vec<String>, usize)> {
    if chars.get(at) != Some(&'{') {
        return None;
    }
    let mut choices = vec![String::new()];
    let mut i = at + 1;
    while i < chars.len() {
        match chars[i] {
            '\\' if i + 1 < chars.len() => {
                choices.last_mut()?.push(chars[i + 1]);
                i += 1;
            }
            '}' => return Some((choices, i + 1)),
            '|' => choices.push(String::new()),
            c => choices.last_mut()?.push(c),
        }
        i += 1;
    }
    None
}

fn without_comments(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("//").into_iter().chain(rest.find("/*")).min() {
        out.push_str(&rest[..at]);
        let comment = &rest[at..];
        let end = match comment.starts_with("//") {
            true => comment.find('\n'),
            false => comment.find("*/").map(|end| end + 2),
        };
        match end {
            Some(end) => rest = &comment[end..],
            // A line comment may be the last line; an open one of the other kind is none.
            None if comment.starts_with("//") => return out,
            None => {
                out.push_str(&comment[..2]);
                rest = &comment[2..];
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dynamic_prompts() {
        assert_eq!(dynamic("a fox // not a dog\nin snow /* deep */!"), "a fox \nin snow !");
        assert_eq!(dynamic("http:// is gone"), "http:");
        assert_eq!(dynamic(r"\{plain\} {one}"), "{plain} one");
        assert_eq!(dynamic("open { and /* open"), "open { and /* open");
        let fox = dynamic("a {red|green|blue} fox");
        assert!(["a red fox", "a green fox", "a blue fox"].contains(&fox.as_str()), "{fox}");
        assert_eq!(fox, dynamic("a {red|green|blue} fox"));
    }
}
