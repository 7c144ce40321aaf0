//! The window's surface, the device, and egui's renderer on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sagittal::wgpu;
use winit::dpi::PhysicalSize;
use winit::event::WindowEvent;
use winit::event_loop::OwnedDisplayHandle;
use winit::window::Window;

use crate::Result;

pub struct Screen {
    window: Arc<Window>,
    surface: wgpu::Surface<'static>,
    config: wgpu::SurfaceConfiguration,
    adapter: wgpu::Adapter,
    device: wgpu::Device,
    queue: wgpu::Queue,
    input: egui_winit::State,
    renderer: egui_wgpu::Renderer,
    next: Option<Instant>,
}

impl Screen {
    /// A device that can draw to `window`.
    pub fn open(display: OwnedDisplayHandle, window: Arc<Window>) -> Result<Self> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12,
            ..wgpu::InstanceDescriptor::new_with_display_handle(Box::new(display))
        });
        let surface = instance.create_surface(window.clone())?;
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            compatible_surface: Some(&surface),
            ..Default::default()
        };
        let adapter = pollster::block_on(instance.request_adapter(&options))?;
        // Default limits would work; with this descriptor sagittal is several times faster.
        let wanted =
            wgpu::DeviceDescriptor { label: Some("app"), ..sagittal::Gpu::device_descriptor(&adapter) };
        let (device, queue) = pollster::block_on(adapter.request_device(&wanted))?;
        let size = window.inner_size();
        let mut config = surface
            .get_default_config(&adapter, size.width.max(1), size.height.max(1))
            .ok_or("the adapter cannot draw to this window")?;
        // egui's colours are sRGB already, so it prefers a format without conversion.
        config.format = config.format.remove_srgb_suffix();
        if !surface.get_capabilities(&adapter).formats.contains(&config.format) {
            config.format = config.format.add_srgb_suffix();
        }
        surface.configure(&device, &config);
        let renderer = egui_wgpu::Renderer::new(&device, config.format, Default::default());
        let side = device.limits().max_texture_dimension_2d as usize;
        let scale = window.scale_factor() as f32;
        let context = egui::Context::default();
        // Frames wait for the device; a press that lasts for a slow frame is still a click.
        context.options_mut(|options| options.input_options.max_click_duration = f64::INFINITY);
        let input =
            egui_winit::State::new(context, egui::ViewportId::ROOT, &*window, Some(scale), None, Some(side));
        Ok(Self { window, surface, config, adapter, device, queue, input, renderer, next: None })
    }

    pub fn window(&self) -> &Window {
        &self.window
    }

    pub fn adapter(&self) -> &wgpu::Adapter {
        &self.adapter
    }

    pub fn device(&self) -> &wgpu::Device {
        &self.device
    }

    pub fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    /// When egui needs the next frame without an event.
    pub fn next_frame(&self) -> Option<Instant> {
        self.next
    }

    /// Passes an event to egui. Returns whether the window must be drawn.
    pub fn handle_event(&mut self, event: &WindowEvent) -> bool {
        self.input.on_window_event(&self.window, event).repaint
    }

    pub fn resize(&mut self, size: PhysicalSize<u32>) {
        (self.config.width, self.config.height) = (size.width.max(1), size.height.max(1));
        self.surface.configure(&self.device, &self.config);
        self.window.request_redraw();
    }

    /// Draws a frame with the UI of `show`.
    pub fn draw(&mut self, show: &mut dyn FnMut(&mut egui::Ui)) -> Result<()> {
        use wgpu::CurrentSurfaceTexture as Current;

        let context = self.input.egui_ctx().clone();
        let output = context.run_ui(self.input.take_egui_input(&self.window), show);
        self.input.handle_platform_output(&self.window, output.platform_output);
        let delay = output.viewport_output.values().map(|v| v.repaint_delay).min().unwrap_or(Duration::MAX);
        self.next = Instant::now().checked_add(delay);

        let triangles = context.tessellate(output.shapes, output.pixels_per_point);
        let size = egui_wgpu::ScreenDescriptor {
            size_in_pixels: [self.config.width, self.config.height],
            pixels_per_point: output.pixels_per_point,
        };
        for (id, change) in
            output.textures_delta.set.iter().flat_map(|(id, all)| all.iter().map(move |c| (id, c)))
        {
            self.renderer.update_texture(&self.device, &self.queue, *id, change);
        }
        let frame = match self.surface.get_current_texture() {
            Current::Success(frame) | Current::Suboptimal(frame) => Some(frame),
            Current::Outdated | Current::Lost => {
                self.surface.configure(&self.device, &self.config);
                self.window.request_redraw();
                None
            }
            Current::Timeout | Current::Validation => {
                self.window.request_redraw();
                None
            }
            Current::Occluded => None,
        };
        if let Some(frame) = frame {
            let mut encoder = self.device.create_command_encoder(&Default::default());
            let mut commands =
                self.renderer.update_buffers(&self.device, &self.queue, &mut encoder, &triangles, &size);
            let view = frame.texture.create_view(&Default::default());
            let attachment = wgpu::RenderPassColorAttachment {
                view: &view,
                depth_slice: None,
                resolve_target: None,
                ops: wgpu::Operations {
                    load: wgpu::LoadOp::Clear(wgpu::Color::BLACK),
                    store: wgpu::StoreOp::Store,
                },
            };
            let pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
                label: Some("window"),
                color_attachments: &[Some(attachment)],
                ..Default::default()
            });
            self.renderer.render(&mut pass.forget_lifetime(), &triangles, &size);
            commands.push(encoder.finish());
            self.queue.submit(commands);
            self.window.pre_present_notify();
            self.queue.present(frame);
        }
        output.textures_delta.free.iter().for_each(|id| self.renderer.free_texture(id));
        Ok(())
    }
}
