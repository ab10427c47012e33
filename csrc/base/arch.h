// Which instruction sets this build has kernels for, and inlining that leaves no symbols behind.
#pragma once

// SRT_SCALAR_ONLY (a build option) leaves every wide kernel out.
#if !defined(SRT_SCALAR_ONLY)
#if defined(__x86_64__) || defined(_M_X64)
#define SRT_X86 1
#elif defined(__aarch64__) || defined(_M_ARM64)
#define SRT_ARM 1
#endif
#endif
// Where every CPU has vectors that kernels are written for, those in plain C++ are left out. Files
// named scalar.cc hold them.
#if !defined(SRT_ARM)
#define SRT_SCALAR 1
#endif

// Helpers shared by translation units of different instruction sets must not become symbols: the
// linker would keep one copy, perhaps the one compiled for the widest CPU.
#if defined(__GNUC__)
#define SRT_INLINE static inline __attribute__((always_inline))
#define SRT_NOINLINE __attribute__((noinline))
// A function that all files of an instruction set share: GCC would make a copy for the calls of
// each.
#if defined(__clang__)
#define SRT_SHARED inline __attribute__((noinline))
#else
#define SRT_SHARED inline __attribute__((noipa))
#endif
#define SRT_RESTRICT __restrict__
#else
#define SRT_INLINE static inline
#define SRT_NOINLINE
#define SRT_SHARED inline
#define SRT_RESTRICT
#endif
