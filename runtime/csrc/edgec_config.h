/* How this runtime is built. `edgec compile --emit static` writes one of its own beside the sources it copies, so that
 * an application needs no flags.
 *
 * EDGEC_BARE_METAL: there is no operating system, hence no files and no threads; platform_bare.c is used. */
#ifndef EDGEC_CONFIG_H
#define EDGEC_CONFIG_H

/* CRC-32 of this many bytes at a time: 1 KB of tables each, on the stack while an artifact is opened. */
#ifndef EDGEC_CRC32_SLICES
#ifdef EDGEC_BARE_METAL
#define EDGEC_CRC32_SLICES 1
#else
#define EDGEC_CRC32_SLICES 8
#endif
#endif

/* Whether variants for GPUs can be run, by libraries that are opened at run time: device.c, cuda.c and opencl.c. */
#ifndef EDGEC_DEVICES
#ifdef EDGEC_BARE_METAL
#define EDGEC_DEVICES 0
#else
#define EDGEC_DEVICES 1
#endif
#endif

#endif
