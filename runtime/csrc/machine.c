/* Which processor this is. Feature bits are those of edgec.runtime.abi.Feature. */
#include "format.h"
#include "platform.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

uint32_t platform_arch(void) {
#if defined(__x86_64__)
    return ARCH_X86_64;
#elif defined(__aarch64__)
    return ARCH_AARCH64;
#elif defined(__arm__)
    return ARCH_ARM;
#elif defined(__riscv) && __riscv_xlen == 32
    return ARCH_RISCV32;
#else
    return ARCH_PORTABLE;
#endif
}

#if defined(__x86_64__)

/* The builtin also asks whether the operating system saves the registers. */
uint64_t platform_features(void) {
    uint64_t features = 0;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) features |= 1u << 0;
    if (__builtin_cpu_supports("fma")) features |= 1u << 1;
    if (__builtin_cpu_supports("avx512f")) features |= 1u << 2;
    if (__builtin_cpu_supports("avx512bw")) features |= 1u << 3;
    if (__builtin_cpu_supports("avx512dq")) features |= 1u << 4;
    if (__builtin_cpu_supports("avx512vl")) features |= 1u << 5;
    if (__builtin_cpu_supports("avx512vnni")) features |= 1u << 6;
    return features;
}

#elif defined(__aarch64__) && defined(__linux__)

/* Bits of AT_HWCAP and AT_HWCAP2: arch/arm64/include/uapi/asm/hwcap.h of Linux. */
uint64_t platform_features(void) {
    unsigned long first = getauxval(AT_HWCAP), second = getauxval(26 /* AT_HWCAP2 */);
    uint64_t features = 0;
    if (first & 1ul << 20) features |= 1u << 16; /* ASIMDDP */
    if (first & 1ul << 10) features |= 1u << 17; /* ASIMDHP */
    if (second & 1ul << 13) features |= 1u << 18; /* I8MM */
    if (first & 1ul << 22) features |= 1u << 19; /* SVE */
    return features;
}

#else

uint64_t platform_features(void) { return 0; }

#endif
