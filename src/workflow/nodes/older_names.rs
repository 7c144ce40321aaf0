//! Names of classes and inputs in older versions of ComfyUI. Classes that do not run here are among them: a workflow
//! that needs one is reported by the name that it has today.

use super::catalogue::{class, is_comfyuis};

/// Classes that are called otherwise today.
const CLASSES: [(&str, &str); 4] = [
    ("T2IAdapterLoader", "ControlNetLoader"),
    ("SDV_img2vid_Conditioning", "SVD_img2vid_Conditioning"),
    ("Load3DAnimation", "Load3D"),
    ("Preview3DAnimation", "Preview3D"),
];
/// Inputs that are called otherwise today: class, old and new name.
const INPUTS: [(&str, &str, &str); 1] = [("ControlNetLoader", "t2i_adapter_name", "control_net_name")];

/// Today's name of a class. Spaces around it are slips that were names for a while (`ConditioningAverage `); those
/// around a name that is unknown without them may be meant.
pub(crate) fn class_today(name: &str) -> &str {
    let plain = name.trim();
    let plain = CLASSES.iter().find(|(old, _)| *old == plain).map_or(plain, |(_, new)| new);
    if class(plain).is_some() || is_comfyuis(plain) { plain } else { name }
}

/// Inputs of a class that are called otherwise today, with the old and the new name.
pub(crate) fn inputs_today(class: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    INPUTS.iter().filter(move |(of, ..)| *of == class).map(|(_, old, new)| (*old, *new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_older_versions() {
        for (old, now) in [
            ("KSampler", "KSampler"),
            ("ConditioningAverage ", "ConditioningAverage"),
            (" VAEDecode\n", "VAEDecode"),
            ("UpscaleModelLoader ", "UpscaleModelLoader"),
            ("T2IAdapterLoader", "ControlNetLoader"),
            ("SDV_img2vid_Conditioning", "SVD_img2vid_Conditioning"),
            ("Somebody's ", "Somebody's "),
            ("", ""),
        ] {
            assert_eq!(class_today(old), now, "{old:?}");
        }
    }
}
