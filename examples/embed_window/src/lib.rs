//! sagittal in an app with a window: winit and egui draw on the same `wgpu::Device` that sagittal
//! computes on, the picture is made in its own thread, and the window stays responsive.
//!
//! `cargo run --release --example embed_window -- [MODEL.safetensors] [--side PIXELS] [--tell]`
//!
//! Without a model the small built-in one is used. `--tell` prints events and states, one per line (see
//! `event_output.rs`), for programs that drive the window, as `tests/window.rs` does.
//!
//! `screen.rs` owns the device and draws frames, `worker.rs` is the thread that computes, `controls.rs` has the
//! controls.

mod controls;
mod event_output;
mod screen;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;

use winit::application::ApplicationHandler;
use winit::dpi::LogicalSize;
use winit::event::WindowEvent;
use winit::event_loop::{ActiveEventLoop, ControlFlow, EventLoop, EventLoopProxy};
use winit::window::{Window, WindowId};

use controls::Controls;
use event_output::EventOutput;
use screen::Screen;
use worker::Worker;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Options of the command line.
#[derive(Clone)]
struct Options {
    /// A checkpoint; None is the embedded one.
    model: Option<PathBuf>,
    /// Width and height of the pictures in pixels; None is the model's default.
    side: Option<usize>,
    tell: bool,
}

impl Options {
    fn read() -> Result<Self> {
        let mut options = Self { model: None, side: None, tell: false };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--tell" => options.tell = true,
                "--side" => {
                    let number = arguments.next().and_then(|n| n.parse().ok());
                    options.side = Some(number.ok_or("--side: expected a number of pixels")?);
                }
                flag if flag.starts_with('-') => {
                    return Err(format!("{flag}: no such option, expected --side PIXELS or --tell").into());
                }
                path => options.model = Some(path.into()),
            }
        }
        Ok(options)
    }
}

/// The app: nothing until winit says that windows can be opened.
struct App {
    options: Options,
    /// For other threads to request a frame.
    wake: EventLoopProxy<()>,
    running: Option<Running>,
    failed: Option<Box<dyn std::error::Error>>,
}

/// The app with its window.
struct Running {
    screen: Screen,
    controls: Controls,
}

impl Running {
    fn open(event_loop: &ActiveEventLoop, options: &Options, wake: EventLoopProxy<()>) -> Result<Self> {
        let attributes = Window::default_attributes()
            .with_title("sagittal: a window with a device of its own")
            .with_inner_size(LogicalSize::new(760.0, 460.0));
        let window = Arc::new(event_loop.create_window(attributes)?);
        let screen = Screen::open(event_loop.owned_display_handle(), window)?;
        // Here sagittal gets the app's own device and queue.
        let gpu =
            sagittal::Gpu::from_adapter(screen.adapter(), screen.device().clone(), screen.queue().clone());
        let worker = Worker::start(gpu, options.model.clone(), move || {
            // It fails only after the window was closed.
            let _ = wake.send_event(());
        });
        let mut output = EventOutput::new(options.tell);
        output.is("adapter", screen.adapter().get_info().name);
        let controls = Controls::new(worker, options.model.is_none(), options.side, output);
        Ok(Self { screen, controls })
    }

    fn frame(&mut self) -> Result<()> {
        self.controls.handle_reports();
        let controls = &mut self.controls;
        self.screen.draw(&mut |ui| controls.show(ui))
    }
}

impl ApplicationHandler<()> for App {
    fn resumed(&mut self, event_loop: &ActiveEventLoop) {
        if self.running.is_none() {
            match Running::open(event_loop, &self.options, self.wake.clone()) {
                Ok(running) => self.running = Some(running),
                Err(e) => self.end(event_loop, e),
            }
        }
    }

    fn user_event(&mut self, _: &ActiveEventLoop, (): ()) {
        if let Some(running) = &self.running {
            running.screen.window().request_redraw();
        }
    }

    fn window_event(&mut self, event_loop: &ActiveEventLoop, _: WindowId, event: WindowEvent) {
        let Some(running) = &mut self.running else { return };
        if running.screen.handle_event(&event) {
            running.screen.window().request_redraw();
        }
        match event {
            WindowEvent::CloseRequested => {
                // The thread ends with its work, and keeps the device until then.
                running.controls.cancel();
                event_loop.exit();
            }
            WindowEvent::Resized(size) => running.screen.resize(size),
            WindowEvent::RedrawRequested => {
                if let Err(e) = running.frame() {
                    self.end(event_loop, e);
                }
            }
            _ => {}
        }
    }

    fn about_to_wait(&mut self, event_loop: &ActiveEventLoop) {
        // egui asks for frames ahead of time, such as for a cursor that blinks.
        event_loop.set_control_flow(match self.running.as_ref().and_then(|r| r.screen.next_frame()) {
            None => ControlFlow::Wait,
            Some(at) if at > std::time::Instant::now() => ControlFlow::WaitUntil(at),
            Some(_) => {
                self.running.iter().for_each(|r| r.screen.window().request_redraw());
                ControlFlow::Wait
            }
        });
    }
}

impl App {
    fn end(&mut self, event_loop: &ActiveEventLoop, error: Box<dyn std::error::Error>) {
        self.failed = Some(error);
        event_loop.exit();
    }
}

/// Runs the app.
///
/// # Errors
/// Those of the window, of the device and of the model.
pub fn run() -> Result<()> {
    let options = Options::read()?;
    let event_loop = EventLoop::with_user_event().build()?;
    let mut app = App { options, wake: event_loop.create_proxy(), running: None, failed: None };
    event_loop.run_app(&mut app)?;
    app.failed.map_or(Ok(()), Err)
}
