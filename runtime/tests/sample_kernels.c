/* Kernels of the sample artifact, as the compiler would make them: serial over tasks, no symbols from anybody. */
#include <stdint.h>

enum { ROWS = 64, INNER = 8, COLUMNS = 6, BLOCK = 4 };

/* W[INNER, COLUMNS] in panels of BLOCK columns. */
static int at(int k, int j) {
    int p = j / BLOCK, width = COLUMNS - p * BLOCK < BLOCK ? COLUMNS - p * BLOCK : BLOCK;
    return p * BLOCK * INNER + k * width + j % BLOCK;
}

/* y = x @ w * scale + shift; shift[3, 2] is stored transposed. A task is a row. */
void sample_dense(const float *x, const float *w, const float *scale, const float *shift, float *y, int32_t lo, int32_t hi) {
    for (int32_t i = lo; i < hi; i++)
        for (int j = 0; j < COLUMNS; j++) {
            float sum = 0;
            for (int k = 0; k < INNER; k++) sum += x[i * INNER + k] * w[at(k, j)];
            y[i * COLUMNS + j] = sum * scale[j] + shift[j % 2 * 3 + j / 2];
        }
}

/* partial[i] = (y[i, label] - 1)^2. */
void sample_errors(const float *y, const int64_t *labels, float *partial, int32_t lo, int32_t hi) {
    for (int32_t i = lo; i < hi; i++) {
        float d = y[i * COLUMNS + labels[i]] - 1;
        partial[i] = d * d;
    }
}

void sample_mean(const float *partial, float *loss, int32_t lo, int32_t hi) {
    for (int32_t t = lo; t < hi; t++) {
        float sum = 0;
        for (int i = 0; i < ROWS; i++) sum += partial[i];
        *loss = sum / ROWS;
    }
}

/* A task is a row of w. */
void sample_update(const float *x, const float *y, const int64_t *labels, const float *scale, const float *lr, float *w,
                   int32_t lo, int32_t hi) {
    for (int32_t k = lo; k < hi; k++) {
        float gradient[COLUMNS] = {0};
        for (int i = 0; i < ROWS; i++) {
            float d = y[i * COLUMNS + labels[i]] - 1;
            gradient[labels[i]] += 2 * d * x[i * INNER + k] / ROWS;
        }
        for (int j = 0; j < COLUMNS; j++) w[at(k, j)] -= *lr * gradient[j] * scale[j];
    }
}

void sample_count(int32_t *steps, int32_t lo, int32_t hi) {
    for (int32_t t = lo; t < hi; t++) *steps += 1;
}

/* 24 pointers, the most that a kernel may have: out = sum of (i + 1) * p[i]. */
void sample_wide(const float *a0, const float *a1, const float *a2, const float *a3, const float *a4, const float *a5,
                 const float *a6, const float *a7, const float *a8, const float *a9, const float *a10, const float *a11,
                 const float *a12, const float *a13, const float *a14, const float *a15, const float *a16,
                 const float *a17, const float *a18, const float *a19, const float *a20, const float *a21,
                 const float *a22, float *out, int32_t lo, int32_t hi) {
    for (int32_t t = lo; t < hi; t++)
        out[t] = a0[t] + 2 * a1[t] + 3 * a2[t] + 4 * a3[t] + 5 * a4[t] + 6 * a5[t] + 7 * a6[t] + 8 * a7[t] + 9 * a8[t] +
                 10 * a9[t] + 11 * a10[t] + 12 * a11[t] + 13 * a12[t] + 14 * a13[t] + 15 * a14[t] + 16 * a15[t] +
                 17 * a16[t] + 18 * a17[t] + 19 * a18[t] + 20 * a19[t] + 21 * a20[t] + 22 * a21[t] + 23 * a22[t];
}
