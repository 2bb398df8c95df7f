/* A checkpoint that is open already. */
#ifndef EDGEC_CHECKPOINT_H
#define EDGEC_CHECKPOINT_H

#include "tensorfile.h"

/* Replaces parameters and states after checking that all of them fit; else changes nothing. */
edgec_status checkpoint_apply(const tensorfile *f, edgec_model *model);

#endif
