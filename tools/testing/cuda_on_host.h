// CUDA C on a processor, for tests: the items of a group are fibers that a barrier switches between. Not fast.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <ucontext.h>
#include <vector>

#define __global__
#define __launch_bounds__(threads)
#define __shared__ static
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;

struct Place { int x; };
static Place threadIdx, blockIdx;
static ucontext_t scheduler;
static std::vector<ucontext_t> fibers;
static std::vector<char> stacks;

// All items of the group come to the same barriers in the same order.
static void __syncthreads() {
  int own = threadIdx.x;
  swapcontext(&fibers[own], &scheduler);
}

template <class T> static T max(T a, T b) { return a > b ? a : b; }
template <class T> static T min(T a, T b) { return a < b ? a : b; }
static float max(float a, float b) { return fmaxf(a, b); } // as on a device: of a number and a NaN the number
static float min(float a, float b) { return fminf(a, b); }
static float as_f32(int bits) { float x; memcpy(&x, &bits, 4); return x; }
static int as_i32(float x) { int bits; memcpy(&bits, &x, 4); return bits; }

static float round_tf32(float x) { return as_f32((as_i32(x) + 0x1000) & ~0x1fff); }

// The registers of mma.sync.m16n8k8 as the manual lays them out; every product in f32, added in order of the depth.
static void multiply_tf32(float *d, float a0, float a1, float a2, float a3, float b0, float b1) {
  static float left[32][16][8], right[32][8][8];
  int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  left[warp][g][t] = a0, left[warp][g + 8][t] = a1, left[warp][g][t + 4] = a2, left[warp][g + 8][t + 4] = a3;
  right[warp][t][g] = b0, right[warp][t + 4][g] = b1;
  __syncthreads();
  for (int i = 0; i < 4; i++)
    for (int k = 0; k < 8; k++) d[i] += left[warp][g + i / 2 * 8][k] * right[warp][k][2 * t + i % 2];
  __syncthreads();
}

template <class Body> static void run_groups(int lo, int hi, int threads, Body body) {
  static Body *current;
  current = &body;
  const size_t stack = 64 << 10;
  fibers.resize(threads);
  stacks.resize(threads * stack);
  for (int group = lo; group < hi; group++) {
    blockIdx.x = group;
    std::vector<char> done(threads, 0);
    static std::vector<char> *finished;
    finished = &done;
    for (int i = 0; i < threads; i++) {
      getcontext(&fibers[i]);
      fibers[i].uc_stack.ss_sp = &stacks[i * stack];
      fibers[i].uc_stack.ss_size = stack;
      fibers[i].uc_link = &scheduler;
      makecontext(&fibers[i], (void (*)())+[] { (*current)(); (*finished)[threadIdx.x] = 1; }, 0);
    }
    for (bool left = true; left;) {
      left = false;
      for (int i = 0; i < threads; i++) {
        if (done[i]) continue;
        threadIdx.x = i;
        swapcontext(&scheduler, &fibers[i]);
        left = left || !done[i];
      }
    }
  }
}
