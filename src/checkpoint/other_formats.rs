//! Recognises what people pass instead of a checkpoint, so that the error can say what to do.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use std::fs;
use std::path::Path;

use crate::{Error, ErrorKind};

/// What a file is instead of a model, and what to do about it.
pub(super) struct Foreign {
    what: &'static str,
    hint: &'static str,
}

const PICTURE: &str = "pass the checkpoint, not a picture made with it";
const PICKLE: &str = "pickles can run code when loaded and are not read: \
     convert the file to .safetensors, as ComfyUI's CheckpointSave node and A1111's checkpoint merger do";
const ARCHIVE: &str = "unpack it and pass the .safetensors file inside";
const PAGE: &str =
    "a web page was saved instead of the file: use the download link, and log in if the site asks for it";
const GGUF: &str = "quantised GGUF models are not read: pass the original .safetensors file it was made from, \
     or turn it back with Python's `gguf` package (gguf.dequantize)";

/// Magic bytes at an offset.
const MAGIC: &[(usize, &[u8], Foreign)] = &[
    (0, b"\x89PNG", Foreign { what: "a PNG picture", hint: PICTURE }),
    (0, b"\xff\xd8\xff", Foreign { what: "a JPEG picture", hint: PICTURE }),
    (8, b"WEBP", Foreign { what: "a WebP picture", hint: PICTURE }),
    (0, b"GIF8", Foreign { what: "a GIF picture", hint: PICTURE }),
    (0, b"PK\x03\x04", Foreign { what: "a zip archive, as PyTorch's .ckpt and .pt files are", hint: PICKLE }),
    (0, b"\x80\x02", Foreign { what: "a Python pickle, as old .ckpt and .pt files are", hint: PICKLE }),
    (0, b"\x80\x04", Foreign { what: "a Python pickle", hint: PICKLE }),
    (0, b"GGUF", Foreign { what: "a GGUF file", hint: GGUF }),
    (0, b"lmgg", Foreign { what: "a GGML file", hint: GGUF }),
    (0, b"\x89HDF", Foreign { what: "an HDF5 file", hint: "pass the model as .safetensors" }),
    (0, b"\x1f\x8b", Foreign { what: "a gzip archive", hint: ARCHIVE }),
    (0, b"7z\xbc\xaf", Foreign { what: "a 7-Zip archive", hint: ARCHIVE }),
    (0, b"Rar!", Foreign { what: "a RAR archive", hint: ARCHIVE }),
    (
        0,
        &[0; 16],
        Foreign {
            what: "zeros",
            hint: "the download was reserved on disk but not completed: fetch it again",
        },
    ),
];

/// First words of texts, in lower case, after white space.
const TEXT: &[(&str, Foreign)] = &[
    (
        "version https://git-lfs.github.com/spec",
        Foreign {
            what: "a Git LFS pointer",
            hint: "only the pointer was cloned: run `git lfs pull`, or download the file itself",
        },
    ),
    ("<!doctype", Foreign { what: "an HTML page", hint: PAGE }),
    ("<html", Foreign { what: "an HTML page", hint: PAGE }),
    ("<?xml", Foreign { what: "an XML text", hint: PAGE }),
    (
        "{",
        Foreign {
            what: "a JSON text",
            hint: "pass the .safetensors file; a workflow names it in its loader node",
        },
    ),
    ("[", Foreign { what: "a JSON text", hint: "pass the .safetensors file" }),
];

/// For a file that holds too little to say what it was meant to be.
const FETCH: &str = "if it was downloaded, fetch it again";

/// What the bytes look like, if they are something well known.
pub(super) fn recognise(bytes: &[u8]) -> Option<&'static Foreign> {
    if let Some((_, _, foreign)) =
        MAGIC.iter().find(|(at, magic, _)| bytes.get(*at..).is_some_and(|b| b.starts_with(magic)))
    {
        return Some(foreign);
    }
    // Text may start with a byte order mark and blank lines.
    let head = bytes.get(..256).unwrap_or(bytes);
    let head =
        String::from_utf8_lossy(head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head)).to_ascii_lowercase();
    TEXT.iter().find(|(start, _)| head.trim_start().starts_with(start)).map(|(_, foreign)| foreign)
}

/// The error for bytes that are no safetensors file.
pub(super) fn not_a_model(bytes: &[u8]) -> Error {
    let error = Error::new(ErrorKind::File, "not a model file").expected("a .safetensors file");
    match recognise(bytes) {
        _ if bytes.is_empty() => error.found("an empty file").hint(FETCH),
        Some(foreign) => error.found(foreign.what).hint(foreign.hint),
        None if bytes.len() < 9 => error.found(format!("only {} bytes", bytes.len())).hint(FETCH),
        None => error
            .found(format!("a file that starts with {:02x?}", bytes.get(..8).unwrap_or(bytes)))
            .hint("pass a Stable Diffusion checkpoint in the safetensors format"),
    }
}

/// The error for a folder that is no model; it names the model files inside, if there are any.
pub(super) fn directory(path: &Path) -> Error {
    let error = Error::new(ErrorKind::File, "not a model")
        .file(path)
        .expected("a .safetensors file, or a folder in the diffusers layout with model_index.json");
    // A folder may hold any number of files; a message names three.
    let inside: Vec<String> = fs::read_dir(path)
        .into_iter()
        .flat_map(|entries| entries.take(1000).flatten())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".safetensors"))
        .take(3)
        .collect();
    match inside.is_empty() {
        true => error.found("a folder of something else").hint("pass the file itself"),
        false => error
            .found("a folder of something else")
            .hint(format!("pass a file in it, such as {}", inside.join(" or "))),
    }
}
