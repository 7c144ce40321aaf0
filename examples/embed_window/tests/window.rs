//! The window example as a person uses it, on a virtual display: keys and presses come as X events,
//! what is seen is read back from the X server, and `--tell` prints the app's state.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use sagittal::Size;
use sagittal::gpu::OpenOptions;
use sagittal::image::{png, read};
use sagittal::{Gpu, Model, ModelOptions, Picture, Request, Sag, embedded};
use x11rb::connection::Connection;
use x11rb::protocol::xproto::{
    BUTTON_PRESS_EVENT, BUTTON_RELEASE_EVENT, ConnectionExt, ImageFormat, InputFocus, KEY_PRESS_EVENT,
    KEY_RELEASE_EVENT, MOTION_NOTIFY_EVENT, Window,
};
use x11rb::protocol::xtest::ConnectionExt as _;
use x11rb::rust_connection::RustConnection;

/// Set to a file name for a picture of the window at work, at the model's own size.
const WRITE: &str = "SAGITTAL_WRITE_WINDOW";

/// No step of the test takes this long on a busy machine with two cores.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A virtual display, and the user in front of it.
struct Display {
    _server: Process,
    name: String,
    x: RustConnection,
    root: Window,
    /// Keycode and whether Shift is held, by character.
    keys: BTreeMap<char, (u8, bool)>,
    shift: u8,
}

impl Display {
    /// None, with a note, where tests may be left out; see `SAGITTAL_TEST_GPU`.
    fn open() -> Option<Self> {
        let asked = std::env::var("SAGITTAL_TEST_GPU").unwrap_or_default();
        if asked == "off" {
            eprintln!("SAGITTAL_TEST_GPU=off: tests that need an adapter are not run");
            return None;
        }
        let started = Command::new("Xvfb")
            .args(["-displayfd", "1", "-screen", "0", "1024x640x24", "-nolisten", "tcp", "-noreset"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut server = match started {
            Ok(child) => Process(child),
            Err(e) => {
                let text = "no virtual display: install xvfb (./with-vulkan cargo test does so as root)";
                assert!(asked != "require", "{text}: {e}");
                eprintln!("{text}: {e}; the window is not tested");
                return None;
            }
        };
        // The server says its number once it listens.
        let mut number = String::new();
        let said = server.0.stdout.take().expect("piped");
        BufReader::new(said).read_line(&mut number).expect("the display's number");
        let name = format!(":{}", number.trim());
        let (x, screen) = x11rb::connect(Some(&name)).expect("a connection to the display");
        let root = x.setup().roots[screen].root;
        let (keys, shift) = keyboard(&x);
        Some(Self { _server: server, name, x, root, keys, shift })
    }

    fn fake(&self, kind: u8, detail: u8, x: i16, y: i16) {
        self.x
            .xtest_fake_input(kind, detail, 0, self.root, x, y, 0)
            .expect("sent")
            .check()
            .expect("an event");
    }

    fn write(&self, text: &str) {
        for letter in text.chars() {
            let (key, shifted) = self.keys[&letter];
            if shifted {
                self.fake(KEY_PRESS_EVENT, self.shift, 0, 0);
            }
            self.fake(KEY_PRESS_EVENT, key, 0, 0);
            self.fake(KEY_RELEASE_EVENT, key, 0, 0);
            if shifted {
                self.fake(KEY_RELEASE_EVENT, self.shift, 0, 0);
            }
        }
    }

    /// Without a window manager the test must give the window the focus.
    fn focus(&self) -> Window {
        let children = self.x.query_tree(self.root).expect("sent").reply().expect("windows").children;
        let area = |w: &Window| {
            let at = self.x.get_geometry(*w).expect("sent").reply().expect("a size");
            u32::from(at.width) * u32::from(at.height)
        };
        let window = children.into_iter().max_by_key(area).expect("a window");
        let focus = self.x.set_input_focus(InputFocus::PARENT, window, x11rb::CURRENT_TIME).expect("sent");
        focus.check().expect("the focus");
        window
    }

    /// What is on the screen where `window` is.
    fn see(&self, window: Window) -> Picture {
        let at = self.x.get_geometry(window).expect("sent").reply().expect("a size");
        let image = self
            .x
            .get_image(ImageFormat::Z_PIXMAP, self.root, at.x, at.y, at.width, at.height, !0)
            .expect("sent")
            .reply()
            .expect("an image");
        let rgb = image.data.chunks_exact(4).flat_map(|p| [p[2], p[1], p[0]]).collect();
        Picture { width: at.width.into(), height: at.height.into(), rgb }
    }
}

/// Which keys write which characters, and the Shift key.
fn keyboard(x: &RustConnection) -> (BTreeMap<char, (u8, bool)>, u8) {
    const SHIFT_LEFT: u32 = 0xffe1;
    let (first, last) = (x.setup().min_keycode, x.setup().max_keycode);
    let map = x.get_keyboard_mapping(first, last - first + 1).expect("sent").reply().expect("the keyboard");
    let (mut keys, mut shift) = (BTreeMap::new(), 0);
    for (key, symbols) in (first..).zip(map.keysyms.chunks(map.keysyms_per_keycode.into())) {
        // Symbols of ASCII have its numbers.
        for (symbol, shifted) in symbols.iter().take(2).zip([false, true]) {
            if let (0x20..0x7f, Some(letter)) = (*symbol, char::from_u32(*symbol)) {
                keys.entry(letter).or_insert((key, shifted));
            }
        }
        if symbols[0] == SHIFT_LEFT {
            shift = key;
        }
    }
    (keys, shift)
}

/// The example, and the states it has printed.
struct App {
    process: Process,
    lines: Receiver<String>,
    /// Where controls are: x, y, width, height.
    at: BTreeMap<String, [f32; 4]>,
    is: BTreeMap<String, String>,
    /// All lines, and how many of them the test has dealt with.
    heard: Vec<String>,
    done: usize,
}

impl App {
    fn start(display: &str, side: usize, folder: &Path) -> Self {
        let test = std::env::current_exe().expect("this test");
        let program = test.ancestors().nth(2).expect("a build folder").join("examples/embed_window");
        assert!(
            program.is_file(),
            "{}: not built; `cargo test --release` builds it, or `cargo build --release --example embed_window`",
            program.display()
        );
        let mut child = Command::new(program)
            .args(["--tell", "--side", &side.to_string()])
            .current_dir(folder)
            .env("DISPLAY", display)
            .env("WINIT_X11_SCALE_FACTOR", "1")
            .env_remove("WAYLAND_DISPLAY")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the example starts");
        let (tell, lines) = channel();
        let output = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|l| tell.send(l)));
        Self {
            process: Process(child),
            lines,
            at: BTreeMap::new(),
            is: BTreeMap::new(),
            heard: Vec::new(),
            done: 0,
        }
    }

    /// Reads on until a line, or what has been read so far, satisfies `enough`.
    fn wait(&mut self, what: &str, enough: impl Fn(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !enough(self) {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|e| {
                let _ = self.process.0.kill();
                let mut said = String::new();
                let errors = self.process.0.stderr.as_mut().expect("piped").read_to_string(&mut said);
                panic!("waiting for {what}: {e} {errors:?}; the app said on stderr: {said}; {:?}", self.is)
            });
            let mut words = line.splitn(3, ' ');
            match (words.next(), words.next(), words.next()) {
                (Some("at"), Some(name), Some(rest)) => {
                    let numbers: Vec<f32> = rest.split(' ').map(|n| n.parse().expect("pixels")).collect();
                    self.at.insert(name.into(), numbers.try_into().expect("four numbers"));
                }
                (Some("is"), Some(name), rest) => {
                    self.is.insert(name.into(), rest.unwrap_or_default().into());
                }
                (Some("error"), ..) => panic!("{line}"),
                _ => {}
            }
            self.heard.push(line);
        }
    }

    fn becomes(&mut self, name: &str, value: &str) {
        self.wait(&format!("{name} to be {value:?}"), |app| app.is.get(name).is_some_and(|v| v == value));
    }

    /// The next line that starts so: also one that came while something else was waited for.
    fn line(&mut self, start: &str) -> String {
        let found = |app: &Self| app.heard[app.done..].iter().position(|l| l.starts_with(start));
        self.wait(start, |app| found(app).is_some());
        self.done += found(self).map_or(0, |i| i + 1);
        self.heard[self.done - 1].clone()
    }

    fn number(&self, name: &str) -> f32 {
        self.is[name].parse().expect("a number")
    }

    /// Does something with the pointer and waits for the frame that has seen it. Frames are slow on a
    /// driver that also computes pictures, and egui sees all input between two frames as one.
    fn point(&mut self, display: &Display, kind: u8, x: i16, y: i16) {
        let detail = u8::from(kind != MOTION_NOTIFY_EVENT);
        display.fake(kind, detail, x, y);
        self.becomes("pointer", &format!("{x} {y} {}", kind == BUTTON_PRESS_EVENT));
    }

    /// Presses a control in its middle.
    fn press(&mut self, display: &Display, name: &str) {
        let [x, y, width, height] = self.at[name];
        self.press_at(display, (x + width / 2.0) as i16, (y + height / 2.0) as i16);
    }

    fn press_at(&mut self, display: &Display, x: i16, y: i16) {
        for kind in [MOTION_NOTIFY_EVENT, BUTTON_PRESS_EVENT, BUTTON_RELEASE_EVENT] {
            self.point(display, kind, x, y);
        }
    }

    /// Presses a slider's rail `part` of its way; the value must have changed then.
    fn slide(&mut self, display: &Display, name: &str, part: f32) {
        const RAIL: f32 = 130.0;
        let ([x, y, _, height], before) = (self.at[name], self.is[name].clone());
        self.press_at(display, (x + RAIL * part) as i16, (y + height / 2.0) as i16);
        assert_ne!(self.is[name], before, "{name}");
    }
}

/// Mean of each colour in a part of a picture: x, y, width, height.
fn mean(picture: &Picture, [x, y, width, height]: [usize; 4]) -> [f64; 3] {
    let mut sum = [0.0; 3];
    for row in y..y + height {
        for pixel in picture.rgb[(row * picture.width + x) * 3..][..width * 3].chunks_exact(3) {
            for (s, v) in sum.iter_mut().zip(pixel) {
                *s += f64::from(*v) / (width * height) as f64;
            }
        }
    }
    sum
}

#[test]
fn a_person_types_slides_generates_cancels_and_generates_again() {
    let Some(display) = Display::open() else { return };
    let docs = std::env::var_os(WRITE).map(PathBuf::from);
    let side = if docs.is_some() { embedded::SIZE } else { 64 };
    let folder = tempfile::tempdir().expect("a folder");
    let shots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("embed_window");
    fs::create_dir_all(&shots).expect("a folder for screenshots");
    let mut app = App::start(&display.name, side, folder.path());

    app.becomes("generate", "true");
    let adapter = app.is["adapter"].clone();
    let window = display.focus();
    let shot = |name: &str| {
        let seen = display.see(window);
        let path = shots.join(name);
        png::write(&path, &png::encode(&seen, &[]).expect("a PNG"), true).expect("a screenshot");
        seen
    };
    let opened = shot("1-opened.png");
    assert!(opened.rgb.iter().any(|v| *v > 150) && opened.rgb.iter().any(|v| *v < 60), "an empty window");

    app.press(&display, "prompt");
    let prompt = "owl, 3d style";
    display.write(prompt);
    app.becomes("prompt", prompt);
    app.press(&display, "negative");
    display.write("blurry");
    app.becomes("negative", "blurry");
    app.slide(&display, "sag-scale", 0.6);
    assert!((1.0..1.4).contains(&app.number("sag-scale")), "SAG scale {}", app.is["sag-scale"]);
    app.slide(&display, "steps", 0.99);
    shot("2-typed.png");

    // Cancelled during a run; meanwhile the window reacts to input.
    app.press(&display, "generate");
    app.line("step 3 ");
    app.slide(&display, "sag-blur", 0.6);
    assert!((2.5..3.5).contains(&app.number("sag-blur")), "SAG blur {}", app.is["sag-blur"]);
    assert_eq!(app.is["cancel"], "true", "the run ended before it could be cancelled");
    let running = shot("3-running.png");
    assert!(running != opened);
    app.press(&display, "cancel");
    app.line("cancelled");
    app.becomes("generate", "true");
    assert!(!folder.path().join("sagittal-0.png").exists());
    shot("4-cancelled.png");

    // And again, to the end.
    app.slide(&display, "steps", if docs.is_some() { 0.39 } else { 0.12 });
    app.press(&display, "generate");
    let steps = app.is["steps"].clone();
    let step = app.line(&format!("step {steps} "));
    let cells = side / 8;
    assert_eq!(step, format!("step {steps} {steps} {cells} {cells}"), "the last preview");
    app.line("made");
    app.becomes("save", "true");
    app.becomes("generate", "true");
    app.press(&display, "save");
    app.line("saved sagittal-0.png");
    // The frame that says so is drawn after the line is written.
    std::thread::sleep(Duration::from_millis(500));
    let done = shot("5-done.png");
    if let Some(docs) = docs {
        let bytes = png::encode(&done, &[]).expect("a PNG");
        png::write(&docs, &bytes, true).expect("the picture of the window");
    }

    let got = read::picture(&folder.path().join("sagittal-0.png")).expect("the saved picture");
    let mut request = Request::new(prompt, Size::square(side));
    request.negative = vec!["blurry".into()];
    request.schedule.steps = steps.parse().expect("a number");
    (request.guidance.cfg, request.seed) = (app.number("cfg"), 0);
    let (scale, blur_sigma) = (app.number("sag-scale"), app.number("sag-blur"));
    request.guidance.set_sag(Sag { scale, blur_sigma, ..Sag::default() });
    // The app's device was made without the features that cooperative matrices take.
    let gpu =
        Gpu::open_with(&OpenOptions { adapter: Some(&adapter), matrices: Some(false), ..Default::default() });
    let checkpoint = embedded::checkpoint().expect("the model");
    let model = Model::new(gpu.expect("the app's adapter"), checkpoint, ModelOptions::default());
    let want = model.expect("a model").generate(&request);
    assert!(got == want.expect("a picture").pictures[0], "the window's picture is not the library's");

    // And it is the one that is seen.
    let inside = app.at["picture"].map(|v| v as usize);
    let (seen, drawn) = (mean(&done, inside), mean(&got, [0, 0, side, side]));
    let far = seen.iter().zip(drawn).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(far < 4.0, "on the screen {seen:?}, in the picture {drawn:?}");
}
