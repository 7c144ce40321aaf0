/* A complete example: a picture from C, with progress and errors:
 *
 *     cargo build --release -p sagittal-capi
 *     cc capi/examples/generate.c -Iinclude -Ltarget/release -lsagittal_capi -Wl,-rpath,target/release -o target/generate
 *     target/generate "fox, 3d style" fox.png [MODEL.safetensors [SIDE [STEPS]]]
 *
 * Without a model, or with "", the small built-in one is used. */

#include <stdio.h>
#include <stdlib.h>

#include "sagittal.h"

/* Called on this thread while the picture is made; anything but 0 would stop it. */
static int progress(void *user, const SagittalEvent *event) {
    if (event->phase == SAGITTAL_PHASE_SAMPLING) {
        fprintf((FILE *)user, "step %u of %u\n", event->step, event->total);
    }
    return 0;
}

static int failed(const char *what) {
    fprintf(stderr, "%s: %s\n", what, sagittal_last_error());
    return (int)sagittal_last_status();
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: %s PROMPT OUT.png [MODEL [SIDE [STEPS]]]\n", argv[0]);
        return SAGITTAL_STATUS_USAGE;
    }
    const char *path = argc > 3 && argv[3][0] ? argv[3] : NULL;
    int status = 0;
    SagittalDevice *device = NULL;
    SagittalModel *model = NULL;
    SagittalPictures pictures = SAGITTAL_PICTURES_INIT;
    SagittalRequest request;

    if (sagittal_device_open(NULL, &device) != SAGITTAL_STATUS_OK) {
        status = failed("no device");
    } else if (sagittal_model_open(device, path, &model) != SAGITTAL_STATUS_OK) {
        status = failed("no model");
    } else {
        printf("sagittal %s on %s\n", sagittal_version(), sagittal_device_name(device));
        sagittal_request_init(model, &request, sizeof request);
        request.prompt = argv[1];
        request.seed = 7;
        request.sag_scale = 0.75f;
        if (argc > 4) request.width = request.height = (uint32_t)atoi(argv[4]);
        if (argc > 5) request.steps = (uint32_t)atoi(argv[5]);
        if (sagittal_generate(model, &request, progress, stdout, &pictures) != SAGITTAL_STATUS_OK) {
            status = failed("no picture");
        } else if (sagittal_write_png(&pictures, 0, argv[2], true) != SAGITTAL_STATUS_OK) {
            status = failed("not written");
        } else {
            printf("%s: %zu x %zu\n", argv[2], pictures.width, pictures.height);
        }
    }
    /* Freeing NULL, or empty pictures, does nothing. */
    sagittal_pictures_free(&pictures);
    sagittal_model_free(model);
    sagittal_device_free(device);
    return status;
}
