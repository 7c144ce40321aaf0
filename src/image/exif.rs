//! The few fields of EXIF data in which programs leave texts. EXIF is TIFF without a picture: a byte order,
//! then lists of fields, each with a tag, a kind, a count, and a value or the place of one.
#![warn(clippy::indexing_slicing, clippy::string_slice)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::string_slice))]

/// The fields that are looked at, and the keywords of the same in PNGs: where a program writes a
/// PNG's text, in other files it takes the field.
const FIELDS: [(u16, &str); 6] = [
    (0x010e, "Description"),
    (0x010f, "Make"),
    (0x0110, "Model"),
    (0x0131, "Software"),
    (0x927c, "MakerNote"),
    (USER_COMMENT, "UserComment"),
];

const USER_COMMENT: u16 = 0x9286;
/// The place of the list that holds the two last of them.
const SUB_LIST: u16 = 0x8769;

/// Lists that are followed: the first, and the one that it names. More would be a ring.
const MOST_LISTS: usize = 4;

#[derive(Clone, Copy)]
struct Tiff<'b> {
    bytes: &'b [u8],
    big: bool,
}

impl<'b> Tiff<'b> {
    fn u16(self, at: usize) -> Option<u16> {
        let two = self.bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if self.big { u16::from_be_bytes(two) } else { u16::from_le_bytes(two) })
    }

    fn u32(self, at: usize) -> Option<usize> {
        let four = self.bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some((if self.big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) }) as usize)
    }

    /// The bytes of a field, whose entry is at `entry`. Values of up to four bytes are stored in the entry.
    fn value(self, entry: usize) -> Option<&'b [u8]> {
        // Bytes, texts and bytes without a meaning; anything else is no text.
        let kind = self.u16(entry + 2)?;
        let length = matches!(kind, 1 | 2 | 7).then(|| self.u32(entry + 4)).flatten()?;
        let start = if length <= 4 { entry + 8 } else { self.u32(entry + 8)? };
        self.bytes.get(start..start.checked_add(length)?)
    }
}

/// The texts in the EXIF data `bytes` (keyword, text), which may begin with the marker of a JPEG's segment.
/// What is damaged is left out.
pub fn texts(bytes: &[u8]) -> Vec<(String, String)> {
    let bytes = bytes.strip_prefix(b"Exif\0\0").unwrap_or(bytes);
    let big = match bytes {
        [b'M', b'M', 0, 42, ..] => true,
        [b'I', b'I', 42, 0, ..] => false,
        _ => return Vec::new(),
    };
    let tiff = Tiff { bytes, big };
    let (mut found, mut lists) = (Vec::new(), vec![tiff.u32(4)]);
    let mut at = 0;
    while let Some(list) = lists.get(at).copied().filter(|_| at < MOST_LISTS) {
        at += 1;
        let Some((list, count)) = list.and_then(|list| Some((list, usize::from(tiff.u16(list)?)))) else {
            continue;
        };
        for entry in (0..count).map(|i| list + 2 + 12 * i) {
            match tiff.u16(entry) {
                Some(SUB_LIST) => lists.push(tiff.u32(entry + 8)),
                Some(tag) => {
                    let Some((_, keyword)) = FIELDS.iter().find(|(field, _)| *field == tag) else { continue };
                    let Some(value) = tiff.value(entry) else { continue };
                    let text = if tag == USER_COMMENT { comment(value, big) } else { plain(value) };
                    found.push(((*keyword).to_owned(), text));
                }
                None => break,
            }
        }
    }
    found
}

/// A text up to its zero, UTF-8 as everyone writes it.
fn plain(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

/// A user comment: eight bytes that name its code, then the text. Programs disagree on what they mean: after
/// `UNICODE` come UTF-16 of either byte order and UTF-8, and some leave the eight bytes out.
fn comment(bytes: &[u8], big: bool) -> String {
    let (code, text) = bytes.split_at_checked(8).unwrap_or((&[], bytes));
    match code {
        b"UNICODE\0" => unicode(text, big),
        // JIS holds the letters of ASCII as they are; what else there is cannot be read and becomes U+FFFD.
        b"ASCII\0\0\0" | b"JIS\0\0\0\0\0" | b"\0\0\0\0\0\0\0\0" => plain(text),
        _ => plain(bytes),
    }
}

fn unicode(text: &[u8], big: bool) -> String {
    let (text, big) = match text {
        [0xfe, 0xff, rest @ ..] => (rest, true),
        [0xff, 0xfe, rest @ ..] => (rest, false),
        [0xef, 0xbb, 0xbf, rest @ ..] => return plain(rest),
        _ => {
            // Settings hold letters of ASCII, which have a zero on one side in UTF-16 and none in UTF-8.
            let zeros = |odd: usize| text.iter().skip(odd).step_by(2).filter(|b| **b == 0).count();
            match zeros(0).cmp(&zeros(1)) {
                std::cmp::Ordering::Greater => (text, true),
                std::cmp::Ordering::Less => (text, false),
                std::cmp::Ordering::Equal if std::str::from_utf8(text).is_ok() => return plain(text),
                std::cmp::Ordering::Equal => (text, big),
            }
        }
    };
    let unit = |two: &[u8]| match *two {
        [a, b] if big => u16::from_be_bytes([a, b]),
        [a, b] => u16::from_le_bytes([a, b]),
        _ => 0,
    };
    let units: Vec<u16> = text.chunks_exact(2).map(unit).collect();
    String::from_utf16_lossy(&units).trim_end_matches('\0').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// EXIF data with a description in the first list and a user comment in the one that it names.
    fn exif(big: bool, description: &str, comment: &[u8]) -> Vec<u8> {
        let two = |n: u16| if big { n.to_be_bytes() } else { n.to_le_bytes() };
        let four = |n: usize| if big { (n as u32).to_be_bytes() } else { (n as u32).to_le_bytes() };
        let field = |tag: u16, kind: u16, count: usize, value: usize| {
            [&two(tag)[..], &two(kind), &four(count), &four(value)].concat()
        };
        let (second, texts) = (8 + 2 + 24 + 4, 8 + 2 + 24 + 4 + 2 + 12 + 4);
        [
            if big { b"MM" } else { b"II" },
            &two(42)[..],
            &four(8),
            &two(2),
            &field(0x010e, 2, description.len(), texts),
            &field(SUB_LIST, 4, 1, second),
            &four(0),
            &two(1),
            &field(USER_COMMENT, 7, comment.len(), texts + description.len()),
            &four(0),
            description.as_bytes(),
            comment,
        ]
        .concat()
    }

    fn user_comment(exif: &[u8]) -> Option<String> {
        texts(exif).into_iter().find(|(keyword, _)| keyword == "UserComment").map(|(_, text)| text)
    }

    #[test]
    fn user_comments_in_every_code_and_byte_order() {
        let text = "füchse 🦊\nSteps: 1, Seed: 2, Size: 64x64";
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        for order in [true, false] {
            let cases: [&[&[u8]]; 9] = [
                &[b"UNICODE\0", &big],
                &[b"UNICODE\0", &little],
                &[b"UNICODE\0", b"\xfe\xff", &big],
                &[b"UNICODE\0", b"\xff\xfe", &little],
                &[b"UNICODE\0", text.as_bytes()],
                &[b"UNICODE\0\xef\xbb\xbf", text.as_bytes()],
                &[b"ASCII\0\0\0", text.as_bytes()],
                &[b"\0\0\0\0\0\0\0\0", text.as_bytes(), b"\0"],
                &[text.as_bytes()],
            ];
            for (i, case) in cases.iter().enumerate() {
                assert_eq!(
                    user_comment(&exif(order, "a description", &case.concat())).as_deref(),
                    Some(text),
                    "{i}"
                );
            }
            let jis = [b"JIS\0\0\0\0\0".as_slice(), b"a fox \x8c\xcf\nSteps: 1"].concat();
            assert_eq!(user_comment(&exif(order, "d", &jis)).unwrap(), "a fox \u{fffd}\u{fffd}\nSteps: 1");
            // Letters of neither zero: the byte order of the data itself.
            let letters: Vec<u8> = "狐狐狐"
                .encode_utf16()
                .flat_map(|u| if order { u.to_be_bytes() } else { u.to_le_bytes() })
                .collect();
            let comment = [b"UNICODE\0".as_slice(), &letters].concat();
            assert_eq!(user_comment(&exif(order, "d", &comment)).unwrap(), "狐狐狐");
            let marked = [b"Exif\0\0".as_slice(), &exif(order, "prompt:{}", b"")].concat();
            assert_eq!(texts(&marked)[0], ("Description".into(), "prompt:{}".into()));
        }
    }

    proptest! {
        #[test]
        fn damage_is_left_out(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), cut in 0usize..90) {
            texts(&bytes);
            let sound = exif(cut % 2 == 0, "d", b"ASCII\0\0\0text");
            texts(&sound[..cut.min(sound.len())]);
            bytes.splice(0..0, *b"II*\0");
            texts(&bytes);
        }
    }
}
