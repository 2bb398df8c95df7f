/* cuBLASLt: products of matrices in place of kernels, where an application allows it and the library is the faster;
 * ../README.md, "Libraries". */
#ifndef EDGEC_CUBLASLT_H
#define EDGEC_CUBLASLT_H

#include "device.h"

/* What the library knows of a product of the artifact. */
typedef struct cublaslt_plan {
    const format_product *product;
    void *operation, *layouts[3]; /* of right, left and result: it has columns where we have rows */
    uint64_t algorithm[8];
    size_t done, rest; /* bytes of the result: that it writes, that are zeros behind them */
    int chosen;
} cublaslt_plan;

typedef struct cublaslt {
    void *handle; /* NULL: there is no library */
    cublaslt_plan *plans; /* of `count` products of the artifact; room for all of them, zero before `cublaslt_open` */
    uint32_t count;       /* 0: kernels do everything */

    int (*Create)(void **);
    int (*Destroy)(void *);
    size_t (*GetVersion)(void);
    int (*DescCreate)(void **, int, int);
    int (*DescSet)(void *, int, const void *, size_t);
    int (*DescDestroy)(void *);
    int (*LayoutCreate)(void **, int, uint64_t, uint64_t, int64_t);
    int (*LayoutSet)(void *, int, const void *, size_t);
    int (*LayoutDestroy)(void *);
    int (*PreferenceCreate)(void **);
    int (*PreferenceSet)(void *, int, const void *, size_t);
    int (*PreferenceDestroy)(void *);
    int (*Heuristic)(void *, void *, void *, void *, void *, void *, void *, int, void *, int *);
    int (*Matmul)(void *, void *, const void *, const void *, void *, const void *, void *, const void *, const void *,
                  void *, void *, void *, const void *, void *, size_t, void *);
} cublaslt;

/* Chooses what the library does: as the device's cache folder remembers it, else by measuring, which the folder must
 * then keep. Nothing is chosen if anything fails. `name` of the device, version of its driver; `programs` is as in
 * device.h. */
void cublaslt_open(cublaslt *lt, device *d, const artifact *a, const char *name, int driver,
                   uint64_t (*programs)(void *context), void *context);
void cublaslt_close(cublaslt *lt);

/* The plan of a kernel that the library stands in for, else NULL. */
cublaslt_plan *cublaslt_find(const cublaslt *lt, uint32_t kernel);

/* The product of what lies at the kernel's `addresses`, on a stream of the driver's; without the zeros. 0 if that went
 * well. */
int cublaslt_multiply(const cublaslt *lt, const cublaslt_plan *plan, const uint64_t *addresses, void *stream);

#endif
