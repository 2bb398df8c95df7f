/* The bytes of a `.edge` file; the prose is in ../README.md. All integers are little-endian; records are read in place.
 *
 * Records have no padding: natural alignment, with reserved fields (zero) where it would appear.
 */
#ifndef EDGEC_FORMAT_H
#define EDGEC_FORMAT_H

#include <stdint.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "artifacts are read in place by little-endian machines");

#define FORMAT_MAGIC "\x89" "EDGE\r\n\x1a" /* as PNG's: shows a text-mode transfer at once */
#define FORMAT_NONE 0xFFFFFFFFu /* an index that points to nothing */
#define FORMAT_ZEROS UINT64_MAX /* the offset of a tensor that begins as zeros and has no bytes in the file */
#define FORMAT_MAX_SECTIONS 4096u

/* Records alias the bytes of the file. */
#define FORMAT_RECORD struct __attribute__((may_alias))

typedef FORMAT_RECORD format_header {
    uint8_t magic[8];
    uint32_t version;
    uint32_t section_count;
    uint64_t file_bytes;
    uint8_t fingerprint[16];
    uint32_t page_bytes; /* alignment of WEIGHTS and CODE: a power of two, 64..65536 */
    uint32_t reserved[3];
    uint32_t sections_crc32; /* of the section table */
    uint32_t header_crc32;   /* of the 60 bytes before it */
} format_header;
_Static_assert(sizeof(format_header) == 64, "header");

/* Shared sections have `variant` FORMAT_NONE. Unknown types are skipped; a change of meaning is a new version. */
enum format_section_type {
    SECTION_STRINGS = 1,
    SECTION_STORAGES = 2,
    SECTION_TENSORS = 3,
    SECTION_VARIANTS = 4,
    SECTION_WEIGHTS = 5, /* a whole number of 64-byte lines */
    SECTION_MANIFEST = 6,  /* JSON for people and tools */
    SECTION_SIGNATURE = 7, /* reserved */
    SECTION_ORIGINALS = 8, /* tensors of the source model that no program reads, for tools */

    SECTION_PLACEMENTS = 16, /* one of each in every variant */
    SECTION_BUFFERS = 17,
    SECTION_KERNELS = 18,
    SECTION_ARGUMENTS = 19,
    SECTION_PROGRAMS = 20,
    SECTION_CALLS = 21,
    SECTION_OPERANDS = 22,
    SECTION_BINDINGS = 23,
    SECTION_CODE = 24,  /* an ELF image, a cubin or OpenCL C; absent where the kernels are linked into the application */
    SECTION_SOURCE = 25, /* C source of the kernels, for tools; not read here */
    SECTION_PRODUCTS = 26 /* of CUDA: kernels that a library could stand in for; may be absent */
};

/* In the order of the file; follows the header. */
typedef FORMAT_RECORD format_section {
    uint32_t type;
    uint32_t variant;
    uint64_t offset;
    uint64_t bytes;
    uint32_t crc32;
    uint32_t reserved;
} format_section;
_Static_assert(sizeof(format_section) == 32, "section");

/* Storage of a tensor; see edgec.runtime.abi.Storage. */
typedef FORMAT_RECORD format_storage {
    uint32_t dims[8];
    uint8_t perm[8];
    uint32_t block;
    uint8_t rank;
    uint8_t reserved[3];
} format_storage;
_Static_assert(sizeof(format_storage) == 48, "storage");

typedef FORMAT_RECORD format_tensor {
    uint64_t offset; /* in WEIGHTS, a multiple of 64; or FORMAT_ZEROS */
    uint64_t bytes;
    uint32_t name;
    uint32_t storage; /* of the bytes in WEIGHTS */
    uint8_t kind;
    uint8_t dtype;
    uint8_t rank;
    uint8_t reserved[5];
    uint32_t shape[8];
} format_tensor;
_Static_assert(sizeof(format_tensor) == 64, "tensor");

typedef FORMAT_RECORD format_variant {
    uint64_t features;
    uint64_t param_bytes;
    uint64_t state_bytes;
    uint32_t target;
    uint8_t arch;
    uint8_t capability; /* CUDA: 10 * major + minor of the devices that the code is for */
    uint8_t reserved[2];
} format_variant;
_Static_assert(sizeof(format_variant) == 32, "variant");

enum format_arch { ARCH_X86_64 = 1, ARCH_AARCH64 = 2, ARCH_ARM = 3, ARCH_RISCV32 = 4, ARCH_PORTABLE = 5,
                   ARCH_CUDA = 6, ARCH_OPENCL = 7 };
enum format_region { REGION_ARENA = 0, REGION_PARAM = 1, REGION_STATE = 2, REGION_WEIGHTS = 3 };

/* Number i places tensor i. */
typedef FORMAT_RECORD format_placement {
    uint64_t offset; /* in the region; 0 in WEIGHTS */
    uint32_t storage;
    uint8_t region;
    uint8_t trained;
    uint8_t reserved[2];
} format_placement;
_Static_assert(sizeof(format_placement) == 16, "placement");

typedef FORMAT_RECORD format_buffer {
    uint64_t offset; /* in the region; in WEIGHTS: in the tensor */
    uint64_t bytes;
    uint32_t tensor; /* FORMAT_NONE except in WEIGHTS */
    uint8_t region;
    uint8_t reserved[3];
} format_buffer;
_Static_assert(sizeof(format_buffer) == 24, "buffer");

typedef FORMAT_RECORD format_kernel {
    uint64_t entry; /* offset into CODE; without CODE an index into the application's table; devices go by name */
    uint32_t name;
    uint32_t first_argument;
    uint32_t argument_count;
    uint32_t threads; /* work items of a group on a device, 1..1024; else 0 */
} format_kernel;
_Static_assert(sizeof(format_kernel) == 24, "kernel");

/* All that a kernel does: left[rows, depth] @ right[depth, columns] in f32, `batch` times. Factors are left and right:
 * matrices in rows of `leading` elements, one every `strides` elements. The results lie dense in theirs, before zeros. */
typedef FORMAT_RECORD format_product {
    uint64_t strides[2]; /* elements; 0: one matrix for all */
    uint32_t kernel;     /* ascending */
    uint32_t batch;
    uint32_t rows;
    uint32_t columns;
    uint32_t depth;
    uint32_t leading[2];
    uint8_t factors[2];    /* arguments of the kernel */
    uint8_t transposed[2]; /* 1: the rows are of the depth (left), of the columns (right) */
    uint8_t result;
    uint8_t tf32; /* 1: factors may be rounded to 10 bits of mantissa */
    uint8_t reserved[6];
} format_product;
_Static_assert(sizeof(format_product) == 56, "product");

enum format_access { ACCESS_READ = 1, ACCESS_WRITE = 2, ACCESS_READ_WRITE = 3 };

typedef FORMAT_RECORD format_argument {
    uint64_t bytes;
    uint32_t access;
    uint32_t reserved;
} format_argument;
_Static_assert(sizeof(format_argument) == 16, "argument");

typedef FORMAT_RECORD format_program {
    uint64_t arena_bytes;
    uint32_t name;
    uint32_t first_call;
    uint32_t call_count;
    uint32_t first_binding;
    uint32_t binding_count;
    uint32_t reserved;
} format_program;
_Static_assert(sizeof(format_program) == 32, "program");

enum format_opcode { OPCODE_KERNEL = 0, OPCODE_GUARD = 1, OPCODE_ZERO = 2, OPCODE_GUARD_GRADIENTS = 3 };

typedef FORMAT_RECORD format_call {
    uint64_t macs;
    uint32_t kernel; /* FORMAT_NONE except for OPCODE_KERNEL */
    uint32_t first_operand;
    int32_t tasks;
    uint32_t label;
    uint8_t opcode;
    uint8_t operand_count;
    uint8_t reserved[6];
} format_call;
_Static_assert(sizeof(format_call) == 32, "call");

typedef uint32_t format_operand; /* index of a buffer */

typedef FORMAT_RECORD format_binding {
    int64_t low;
    int64_t high;
    int64_t ignored; /* one more that is accepted; `low` where there is none */
    uint32_t name;
    uint32_t buffer;
    uint8_t slot;
    uint8_t dtype;
    uint8_t rank;
    uint8_t axis;   /* of an output with a limit, else 0 */
    uint32_t limit; /* 0, or 1 + the number of a binding of the program. Of an input: the scalar that every element must
                       be less than; of an output: the output that says how many slices along `axis` hold results */
    uint32_t shape[8];
} format_binding;
_Static_assert(sizeof(format_binding) == 72, "binding");

#endif
