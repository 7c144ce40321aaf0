//! The controls: settings on the left, the picture on the right.

use std::path::Path;

use egui::{
    CentralPanel, Color32, ColorImage, DragValue, Panel, ProgressBar, Slider, TextEdit, TextureHandle,
    TextureOptions, Ui, Vec2,
};
use sagittal::Size;
use sagittal::image::{parameters, png};
use sagittal::{Picture, Request, embedded};

use crate::event_output::EventOutput;
use crate::worker::{News, Worker};

pub struct Controls {
    worker: Worker,
    output: EventOutput,
    /// Values of the controls.
    request: Request,
    negative: String,
    /// The side from the command line.
    side: Option<usize>,
    embedded: bool,
    state: State,
    /// A preview or picture that is not on the device yet.
    fresh: Option<Picture>,
    shown: Option<TextureHandle>,
    /// The last finished picture with its settings.
    made: Option<(Picture, Request)>,
}

enum State {
    Opening,
    Idle(String),
    Working { request: Box<Request>, doing: String, progress: f32 },
    Failed(String),
}

impl Controls {
    /// `embedded` is whether the model is the built-in one, `side` is that of the command line.
    pub fn new(worker: Worker, embedded: bool, side: Option<usize>, output: EventOutput) -> Self {
        let mut request = Request::new("", Size::square(0));
        if embedded {
            request.guidance.cfg = embedded::CFG;
        }
        Self {
            worker,
            output,
            request,
            negative: String::new(),
            side,
            embedded,
            state: State::Opening,
            fresh: None,
            shown: None,
            made: None,
        }
    }

    pub fn cancel(&self) {
        self.worker.cancel();
    }

    /// Handles the reports of the thread.
    pub fn handle_reports(&mut self) {
        let all: Vec<News> = self.worker.news().collect();
        all.into_iter().for_each(|news| self.take(news));
    }

    fn take(&mut self, news: News) {
        match news {
            News::Ready(native) => {
                let side = self.side.unwrap_or(if self.embedded { embedded::SIZE } else { native });
                (self.request.size.width, self.request.size.height) = (side, side);
                self.state = State::Idle("ready".into());
            }
            News::Doing(what) => {
                if let State::Working { doing, .. } = &mut self.state {
                    *doing = what.into();
                }
            }
            News::Step { step, total, preview } => {
                self.output.print(format_args!("step {step} {total} {} {}", preview.width, preview.height));
                self.fresh = Some(preview);
                if let State::Working { doing, progress, .. } = &mut self.state {
                    (*doing, *progress) = (format!("step {step} of {total}"), step as f32 / total as f32);
                }
            }
            News::Made(picture) => {
                self.output.print("made");
                self.fresh = Some(picture.clone());
                let before = std::mem::replace(&mut self.state, State::Idle("done".into()));
                if let State::Working { request, .. } = before {
                    self.made = Some((picture, *request));
                }
            }
            News::Cancelled => {
                self.output.print("cancelled");
                self.state = State::Idle("cancelled".into());
            }
            News::Failed(text) => {
                self.output.print(format_args!("error {text}"));
                self.state = State::Failed(text);
            }
        }
    }

    /// A frame.
    pub fn show(&mut self, ui: &mut Ui) {
        if let Some(picture) = self.fresh.take() {
            let image = ColorImage::from_rgb([picture.width, picture.height], &picture.rgb);
            self.shown = Some(ui.ctx().load_texture("picture", image, TextureOptions::LINEAR));
        }
        Panel::left("settings").resizable(false).exact_size(310.0).show(ui, |ui| {
            ui.add_space(8.0);
            self.settings(ui);
            ui.separator();
            self.buttons(ui);
            self.outcome(ui);
        });
        CentralPanel::default().show(ui, |ui| self.picture(ui));
        let (at, down) = ui.input(|i| (i.pointer.latest_pos(), i.pointer.primary_down()));
        let at = at.unwrap_or_default() * ui.pixels_per_point();
        self.output.is("pointer", format_args!("{:.0} {:.0} {down}", at.x, at.y));
    }

    fn settings(&mut self, ui: &mut Ui) {
        let (r, output) = (&mut self.request, &mut self.output);
        ui.label("Prompt");
        let prompt = TextEdit::multiline(&mut r.prompt).hint_text("fox, 3d style").desired_rows(2);
        output.control("prompt", &ui.add(prompt.desired_width(f32::INFINITY)), &r.prompt);
        ui.label("Negative");
        let negative = TextEdit::singleline(&mut self.negative).desired_width(f32::INFINITY);
        output.control("negative", &ui.add(negative), &self.negative);
        ui.add_space(4.0);
        ui.spacing_mut().slider_width = 130.0;
        let steps = Slider::new(&mut r.schedule.steps, 1..=50).text("Steps");
        output.control("steps", &ui.add(steps), r.schedule.steps);
        let cfg = Slider::new(&mut r.guidance.cfg, 1.0..=15.0).fixed_decimals(1).text("CFG scale");
        output.control("cfg", &ui.add(cfg), r.guidance.cfg);
        let mut sag = r.guidance.sag();
        let scale = Slider::new(&mut sag.scale, 0.0..=2.0).fixed_decimals(2).text("SAG scale");
        output.control("sag-scale", &ui.add(scale), sag.scale);
        let blur = Slider::new(&mut sag.blur_sigma, 0.0..=5.0).fixed_decimals(2).text("SAG blur");
        output.control("sag-blur", &ui.add(blur), sag.blur_sigma);
        r.guidance.set_sag(sag);
        ui.horizontal(|ui| {
            output.control("seed", &ui.add(DragValue::new(&mut r.seed)), r.seed);
            ui.label("Seed");
        });
    }

    fn buttons(&mut self, ui: &mut Ui) {
        let (working, opening) =
            (matches!(self.state, State::Working { .. }), matches!(self.state, State::Opening));
        ui.horizontal(|ui| {
            // Without a model there is no size yet.
            let can = !working && !opening && self.request.size.width > 0;
            let generate = ui.add_enabled(can, egui::Button::new("Generate"));
            self.output.control("generate", &generate, can);
            if generate.clicked() {
                self.generate();
            }
            let cancel = ui.add_enabled(working, egui::Button::new("Cancel"));
            self.output.control("cancel", &cancel, working);
            if cancel.clicked() {
                self.worker.cancel();
            }
            let save = ui.add_enabled(self.made.is_some() && !working, egui::Button::new("Save PNG"));
            self.output.control("save", &save, self.made.is_some());
            if save.clicked() {
                self.save();
            }
        });
    }

    fn generate(&mut self) {
        let mut request = self.request.clone();
        request.negative.extend((!self.negative.is_empty()).then(|| self.negative.clone()));
        self.worker.generate(request.clone());
        self.state = State::Working { request: Box::new(request), doing: "waiting".into(), progress: 0.0 };
    }

    /// Writes the last picture into the current folder, with its settings, and replaces no file.
    fn save(&mut self) {
        let Some((picture, request)) = &self.made else { return };
        let name = format!("sagittal-{}.png", request.seed);
        let origin = parameters::Origin { model: "window", ..Default::default() };
        let settings = parameters::parameters(request, &origin, 0);
        let written = png::encode(picture, &[(parameters::KEYWORD, &settings)])
            .and_then(|bytes| png::write(Path::new(&name), &bytes, false));
        self.state = match written {
            Ok(()) => {
                self.output.print(format_args!("saved {name}"));
                State::Idle(format!("saved as {name}"))
            }
            Err(e) => {
                self.output.print(format_args!("error {e}"));
                State::Failed(e.to_string())
            }
        };
    }

    /// The bar and the line below the buttons.
    fn outcome(&self, ui: &mut Ui) {
        let (progress, text) = match &self.state {
            State::Opening => (0.0, "opening the model"),
            State::Idle(text) => (0.0, text.as_str()),
            State::Working { progress, doing, .. } => (*progress, doing.as_str()),
            State::Failed(text) => {
                ui.colored_label(ui.visuals().error_fg_color, text);
                return;
            }
        };
        ui.add(ProgressBar::new(progress).text(text));
    }

    fn picture(&mut self, ui: &mut Ui) {
        let side = ui.available_size().min_elem();
        ui.vertical_centered(|ui| match &self.shown {
            Some(texture) => {
                // A preview has one pixel per latent cell and is scaled to the picture's size.
                let image = ui.add(egui::Image::new((texture.id(), Vec2::splat(side))));
                self.output.control("picture", &image, "shown");
            }
            None => {
                ui.add_space(side / 2.0);
                ui.colored_label(Color32::GRAY, "the picture comes here");
            }
        });
    }
}
