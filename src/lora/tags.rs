//! `<lora:name:weight>` in a prompt, as A1111 has it.
#![warn(clippy::indexing_slicing, clippy::string_slice)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::string_slice))]

use crate::{Error, Result};

/// A LoRA that a prompt asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Tag {
    /// The file's name without folder and extension.
    pub name: String,
    /// Factor for the text encoders.
    pub text: f32,
    /// Factor for the UNet.
    pub unet: f32,
}

/// Splits a prompt into the text without its tags, and the tags. `<lora:name>` has weight 1; `<lora:name:0.8:0.5>` is 0.8
/// for the text encoders and 0.5 for the UNet, in A1111's order, as is `<lora:name:te=0.8:unet=0.5>`. A dynamic rank
/// (`dyn=4`) is ignored with a warning. Spaces around a tag are kept.
///
/// ```
/// let (prompt, tags) = sagittal::lora::tags::take("a fox <lora:ink:0.7>, snow")?;
/// assert_eq!((prompt.as_str(), tags[0].name.as_str(), tags[0].unet), ("a fox , snow", "ink", 0.7));
/// # Ok::<(), sagittal::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for a tag without a name or whose weight is not a
/// finite number, and for A1111's `<hypernet:…>`, which is not supported.
pub fn take(prompt: &str) -> Result<(String, Vec<Tag>)> {
    let (mut kept, mut tags, mut rest) = (String::new(), Vec::new(), prompt);
    while let Some((before, after)) = rest.split_once('<') {
        kept.push_str(before);
        let inner = after.split_once('>').and_then(|(inner, rest)| Some((inner.split_once(':')?, rest)));
        match inner {
            // LyCORIS was an extension of its own once.
            Some((("lora" | "lyco", arguments), after)) => {
                tags.push(tag(arguments)?);
                rest = after;
            }
            Some((("hypernet", _), _)) => return Err(Error::usage("hypernetworks are not supported")),
            _ => {
                kept.push('<');
                rest = after;
            }
        }
    }
    kept.push_str(rest);
    Ok((kept, tags))
}

fn tag(arguments: &str) -> Result<Tag> {
    let fault = |what: &str| {
        Error::usage(what)
            .at(format!("<lora:{arguments}>"))
            .expected("<lora:NAME:WEIGHT>")
            .hint("a weight is a number such as 0.8")
    };
    let mut parts = arguments.split(':').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty()).ok_or_else(|| fault("a LoRA without a name"))?;
    let number = |text: &str| {
        let number = text.trim().parse().ok().filter(|w: &f32| w.is_finite());
        number.ok_or_else(|| fault("the weight of a LoRA is not a number"))
    };
    let (mut weights, mut named_text, mut named_unet) = (Vec::new(), None, None);
    for part in parts {
        match part.split_once('=').map(|(key, value)| (key.trim(), value)) {
            None => weights.push(number(part)?),
            Some(("te", value)) => named_text = Some(number(value)?),
            Some(("unet", value)) => named_unet = Some(number(value)?),
            Some(("dyn", _)) => log::warn!("<lora:{arguments}>: the whole rank is used, not {part}"),
            Some(_) => return Err(fault("a LoRA with an unknown setting")),
        }
    }
    // A1111: what is not given for the UNet is as for the text encoders.
    let (text, unet) = match weights[..] {
        [] => (1.0, None),
        [weight] => (weight, None),
        [text, unet] => (text, Some(unet)),
        _ => return Err(fault("a LoRA with more than two weights")),
    };
    let text = named_text.unwrap_or(text);
    Ok(Tag { name: name.to_owned(), text, unet: named_unet.or(unet).unwrap_or(text) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_taken_out() {
        type Tags = &'static [(&'static str, f32, f32)];
        let cases: &[(&str, &str, Tags)] = &[
            ("a fox", "a fox", &[]),
            (
                "<lora:a>x<lora:b:0.5> <lora:c:1:-2>",
                "x ",
                &[("a", 1.0, 1.0), ("b", 0.5, 0.5), ("c", 1.0, -2.0)],
            ),
            ("<lyco:sub/a.b:.5>", "", &[("sub/a.b", 0.5, 0.5)]),
            (
                "<lora:a:te=0.5:unet=0.2><lora:b:te=0.5><lora:c:0.7:dyn=4><lora:d:unet=2>",
                "",
                &[("a", 0.5, 0.2), ("b", 0.5, 0.5), ("c", 0.7, 0.7), ("d", 1.0, 2.0)],
            ),
            ("a < b <3 <b> <x:y> <lora", "a < b <3 <b> <x:y> <lora", &[]),
            ("<<lora:a>>", "<>", &[("a", 1.0, 1.0)]),
        ];
        for (prompt, kept, expected) in cases {
            let (text, tags) = take(prompt).unwrap();
            assert_eq!(text, *kept, "{prompt:?}");
            let tags: Vec<_> = tags.iter().map(|t| (t.name.as_str(), t.text, t.unet)).collect();
            assert_eq!(tags, *expected, "{prompt:?}");
        }
        for bad in [
            "<lora:>",
            "<lora: :1>",
            "<lora:a:x>",
            "<lora:a:nan>",
            "<lora:a:>",
            "<lora:a:1:2:3>",
            "<lora:a:te=x>",
            "<lora:a:size=2>",
            "<hypernet:a:1>",
        ] {
            assert_eq!(take(bad).unwrap_err().kind(), crate::ErrorKind::Usage, "{bad}");
        }
    }
}
