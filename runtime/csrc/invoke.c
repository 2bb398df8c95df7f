/* C cannot call a function with a number of arguments that is known at run time only: one case for each. */
#include "invoke.h"

typedef void *P;

#define T1 P
#define T2 T1, P
#define T3 T2, P
#define T4 T3, P
#define T5 T4, P
#define T6 T5, P
#define T7 T6, P
#define T8 T7, P
#define T9 T8, P
#define T10 T9, P
#define T11 T10, P
#define T12 T11, P
#define T13 T12, P
#define T14 T13, P
#define T15 T14, P
#define T16 T15, P
#define T17 T16, P
#define T18 T17, P
#define T19 T18, P
#define T20 T19, P
#define T21 T20, P
#define T22 T21, P
#define T23 T22, P
#define T24 T23, P

#define A1 p[0]
#define A2 A1, p[1]
#define A3 A2, p[2]
#define A4 A3, p[3]
#define A5 A4, p[4]
#define A6 A5, p[5]
#define A7 A6, p[6]
#define A8 A7, p[7]
#define A9 A8, p[8]
#define A10 A9, p[9]
#define A11 A10, p[10]
#define A12 A11, p[11]
#define A13 A12, p[12]
#define A14 A13, p[13]
#define A15 A14, p[14]
#define A16 A15, p[15]
#define A17 A16, p[16]
#define A18 A17, p[17]
#define A19 A18, p[18]
#define A20 A19, p[19]
#define A21 A20, p[20]
#define A22 A21, p[21]
#define A23 A22, p[22]
#define A24 A23, p[23]

#define CASE(n) \
    case n: ((void (*)(T##n, int32_t, int32_t))kernel)(A##n, lo, hi); break

void invoke_kernel(void (*kernel)(void), void *const *p, uint32_t count, int32_t lo, int32_t hi) {
    switch (count) {
        CASE(1);
        CASE(2);
        CASE(3);
        CASE(4);
        CASE(5);
        CASE(6);
        CASE(7);
        CASE(8);
        CASE(9);
        CASE(10);
        CASE(11);
        CASE(12);
        CASE(13);
        CASE(14);
        CASE(15);
        CASE(16);
        CASE(17);
        CASE(18);
        CASE(19);
        CASE(20);
        CASE(21);
        CASE(22);
        CASE(23);
        CASE(24);
    }
}
