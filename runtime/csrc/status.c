#include "edgec.h"

const char *edgec_status_text(edgec_status status) {
    switch (status) {
        case EDGEC_OK: return "success";
        case EDGEC_NOT_AN_ARTIFACT: return "the file is not an edgec artifact";
        case EDGEC_NEWER_FORMAT: return "the artifact has a newer format than this runtime";
        case EDGEC_TRUNCATED: return "the artifact is not as long as its header says";
        case EDGEC_DAMAGED: return "the artifact is damaged: a checksum differs";
        case EDGEC_MALFORMED: return "the artifact contradicts itself";
        case EDGEC_WRONG_MACHINE: return "the artifact has no variant for this processor architecture";
        case EDGEC_MISSING_FEATURE: return "the artifact needs processor features that this machine lacks";
        case EDGEC_NO_SUCH_TARGET: return "the artifact has no variant for the target asked for";
        case EDGEC_NO_KERNELS: return "the artifact's kernels are not those linked into this application";
        case EDGEC_BAD_IMAGE: return "the artifact's code image cannot be loaded";
        case EDGEC_NO_DRIVER: return "the artifact needs a GPU whose driver is not installed here";
        case EDGEC_NO_DEVICE: return "the artifact has no variant for the GPUs of this machine";
        case EDGEC_SMALL_DEVICE: return "the GPU allows a kernel too few work items or too little local memory";
        case EDGEC_OUT_OF_MEMORY: return "not enough memory";
        case EDGEC_CANNOT_READ: return "the file cannot be read";
        case EDGEC_CANNOT_WRITE: return "the file cannot be written";
        case EDGEC_CANNOT_MAP: return "the system refuses executable memory";
        case EDGEC_NO_THREADS: return "the system refuses threads";
        case EDGEC_DEVICE_MEMORY: return "not enough memory on the GPU";
        case EDGEC_DEVICE_FAILED: return "the GPU's driver reports a failure";
        case EDGEC_INVALID_ARGUMENT: return "an argument is invalid";
        case EDGEC_NO_SUCH_PROGRAM: return "the artifact has no such program";
        case EDGEC_NO_SUCH_TENSOR: return "there is no tensor of this name or number";
        case EDGEC_WRONG_SIZE: return "the number of bytes is not the tensor's";
        case EDGEC_READ_ONLY: return "the tensor is frozen in this artifact";
        case EDGEC_MISALIGNED: return "the memory is not aligned to 64 bytes";
        case EDGEC_LOSS_NOT_FINITE: return "the loss is not finite; nothing was updated";
        case EDGEC_GRADIENT_NOT_FINITE: return "the gradients are not finite; nothing was updated";
        case EDGEC_LABEL_OUT_OF_RANGE: return "an element of an integer input is out of its range; nothing ran";
        case EDGEC_NOT_A_CHECKPOINT: return "the file is not an edgec checkpoint";
        case EDGEC_CHECKPOINT_NEWER: return "the checkpoint has a newer format than this runtime";
        case EDGEC_CHECKPOINT_DAMAGED: return "the checkpoint is damaged";
        case EDGEC_CHECKPOINT_MALFORMED: return "the checkpoint contradicts itself";
        case EDGEC_CHECKPOINT_MISMATCH: return "the checkpoint is of another graph, update scheme or optimizer";
    }
    return "unknown status";
}
