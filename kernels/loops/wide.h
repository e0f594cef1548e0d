// SPDX-License-Identifier: Apache-2.0
// Sixteen floats worked on at once: one AVX-512 register, or two vectors of eight. Every operation is elementwise and
// exactly rounded, products and sums are fused only by fused(), so that all instruction sets give the same bits. For
// sources that are compiled once per instruction set: nothing here has external linkage, or the linker might take the
// wrong one.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX__) || defined(__FMA__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace depthkv {
namespace {

constexpr std::size_t kWide = 16;

#ifdef __AVX512F__
constexpr std::size_t kPart = 16;
#else
constexpr std::size_t kPart = 8;
#endif

typedef float Part __attribute__((vector_size(kPart * sizeof(float))));
typedef std::int32_t IntPart __attribute__((vector_size(kPart * sizeof(std::int32_t))));

inline Part part_of(float x) { return x - Part{}; }
inline Part load_part(const float* from) {
  Part x;
  std::memcpy(&x, from, sizeof x);
  return x;
}
inline void store_part(float* to, Part x) { std::memcpy(to, &x, sizeof x); }

inline Part fused(Part x, Part y, Part sum) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(x, y, sum);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(x, y, sum);
#else
  for (std::size_t i = 0; i < kPart; ++i) sum[i] = __builtin_fmaf(x[i], y[i], sum[i]);
  return sum;
#endif
}

#ifdef __AVX512F__
struct Wide {
  Part whole;
};
template <class F, class... More>
inline Wide each(F f, const Wide& x, const More&... more) {
  return {f(x.whole, more.whole...)};
}
inline Wide all(float x) { return {part_of(x)}; }
inline Wide load(const float* from) { return {load_part(from)}; }
inline void store(float* to, const Wide& x) { store_part(to, x.whole); }
#else
// Named halves rather than an array, which the compiler wouldn't keep in registers.
struct Wide {
  Part low, high;
};
// f(part, ...) of each part.
template <class F, class... More>
inline Wide each(F f, const Wide& x, const More&... more) {
  return {f(x.low, more.low...), f(x.high, more.high...)};
}
inline Wide all(float x) { return {part_of(x), part_of(x)}; }
inline Wide load(const float* from) { return {load_part(from), load_part(from + kPart)}; }
inline void store(float* to, const Wide& x) {
  store_part(to, x.low);
  store_part(to + kPart, x.high);
}
#endif

inline Wide operator+(const Wide& x, const Wide& y) {
  return each([](Part a, Part b) { return a + b; }, x, y);
}
inline Wide operator-(const Wide& x, const Wide& y) {
  return each([](Part a, Part b) { return a - b; }, x, y);
}
inline Wide operator*(const Wide& x, const Wide& y) {
  return each([](Part a, Part b) { return a * b; }, x, y);
}
inline Wide operator/(const Wide& x, const Wide& y) {
  return each([](Part a, Part b) { return a / b; }, x, y);
}
inline Wide fused(const Wide& x, const Wide& y, const Wide& sum) {
  return each([](Part a, Part b, Part c) { return fused(a, b, c); }, x, y, sum);
}
// Where one is not a number, y.
inline Wide larger(const Wide& x, const Wide& y) {
  return each([](Part a, Part b) { return a > b ? a : b; }, x, y);
}
// x where `which` is more than a limit, else y.
inline Wide where_more(const Wide& which, float limit, const Wide& x, const Wide& y) {
  return each([limit](Part w, Part a, Part b) { return w > limit ? a : b; }, which, x, y);
}
inline Wide magnitude(const Wide& x) {
  return each([](Part a) { return a < 0 ? -a : a; }, x);
}

// The sum of all lanes, always in the same order.
inline float sum_of(const Wide& x) {
  float lanes[kWide];
  store(lanes, x);
  for (std::size_t width = kWide / 2; width > 0; width /= 2)
    for (std::size_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}
inline float largest_of(const Wide& x) {
  float lanes[kWide];
  store(lanes, x);
  for (std::size_t width = kWide / 2; width > 0; width /= 2)
    for (std::size_t i = 0; i < width; ++i) lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
  return lanes[0];
}

// Doubles of half as many floats as a part has.
constexpr std::size_t kDoubles = kPart / 2;
typedef double Doubles __attribute__((vector_size(kDoubles * sizeof(double))));
typedef float Halved __attribute__((vector_size(kDoubles * sizeof(float))));

inline Halved load_halved(const float* from) {
  Halved x;
  std::memcpy(&x, from, sizeof x);
  return x;
}
// GCC 12 takes conversions of more than a base vector apart.
inline Doubles to_doubles(Halved x) {
#ifdef __AVX512F__
  return _mm512_maskz_cvtps_pd(0xff, x);  // the other form warns of what it leaves undefined
#else
  return __builtin_convertvector(x, Doubles);
#endif
}
inline Halved to_floats(Doubles x) {
#ifdef __AVX512F__
  return _mm512_maskz_cvtpd_ps(0xff, x);
#else
  return __builtin_convertvector(x, Halved);
#endif
}

// sums[i] += x[i], in double.
inline void add_half(double* sums, Halved x) {
  Doubles sum;
  std::memcpy(&sum, sums, sizeof sum);
  sum += to_doubles(x);
  std::memcpy(sums, &sum, sizeof sum);
}
inline void add_to(double* sums, Part x) {
#ifdef __AVX512F__
  add_half(sums, __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7));
  add_half(sums + kDoubles, __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15));
#else
  add_half(sums, __builtin_shufflevector(x, x, 0, 1, 2, 3));
  add_half(sums + kDoubles, __builtin_shufflevector(x, x, 4, 5, 6, 7));
#endif
}
inline void add_to(double* sums, const Wide& x) {
#ifdef __AVX512F__
  add_to(sums, x.whole);
#else
  add_to(sums, x.low);
  add_to(sums + kPart, x.high);
#endif
}

// Eight running sums in double.
constexpr std::size_t kEight = 8;
typedef double Four __attribute__((vector_size(4 * sizeof(double))));
#ifdef __AVX512F__
struct Eight {
  Doubles whole;
};
inline Eight no_eight() { return {Doubles{}}; }
// sums + term(x) of eight floats.
template <class Term>
inline Eight add_terms(const float* from, const Eight& sums, Term term) {
  return {sums.whole + term(to_doubles(load_halved(from)))};
}
inline Four folded(const Eight& x) {
  return __builtin_shufflevector(x.whole, x.whole, 0, 1, 2, 3) + __builtin_shufflevector(x.whole, x.whole, 4, 5, 6, 7);
}
#else
struct Eight {
  Doubles low, high;
};
inline Eight no_eight() { return {Doubles{}, Doubles{}}; }
template <class Term>
inline Eight add_terms(const float* from, const Eight& sums, Term term) {
  return {sums.low + term(to_doubles(load_halved(from))), sums.high + term(to_doubles(load_halved(from + kDoubles)))};
}
inline Four folded(const Eight& x) { return x.low + x.high; }
#endif
// The sums of four rows' lanes, each in the order of sum_of().
inline Four sums_of(const Eight (&rows)[4]) {
  const Four a = folded(rows[0]);
  const Four b = folded(rows[1]);
  const Four c = folded(rows[2]);
  const Four d = folded(rows[3]);
  const Four ab = __builtin_shufflevector(a, b, 0, 4, 2, 6) + __builtin_shufflevector(a, b, 1, 5, 3, 7);
  const Four cd = __builtin_shufflevector(c, d, 0, 4, 2, 6) + __builtin_shufflevector(c, d, 1, 5, 3, 7);
  return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}
inline double sum_of(const Eight& x) {
  const Four four = folded(x);
  return (four[0] + four[1]) + (four[2] + four[3]);
}
inline Four root_of(Four x) {
#ifdef __AVX__
  return _mm256_sqrt_pd(x);
#else
  for (std::size_t i = 0; i < 4; ++i) x[i] = __builtin_sqrt(x[i]);
  return x;
#endif
}

// exp(x) for x <= 0, within 2 units in the last place; 0 below -87, not a number where x isn't. Cody and Waite's range
// reduction, then a polynomial on [-ln 2 / 2, ln 2 / 2] (the coefficients of Cephes' expf).
inline Part exp_of(Part x) {
  constexpr float kLeast = -87.0F;
  constexpr float kToInteger = 12582912.0F;  // 1.5 * 2^23: its sum with a small number has that, rounded, in its bits
  const Part shifted = fused(x, part_of(1.44269504F), part_of(kToInteger));
  const Part n = shifted - part_of(kToInteger);
  Part r = fused(n, part_of(-0.693359375F), x);
  r = fused(n, part_of(2.12194440e-4F), r);
  constexpr float kCoefficients[] = {1.3981999507e-3F, 8.3334519073e-3F, 4.1665795894e-2F, 1.6666665459e-1F,
                                     5.0000001201e-1F};
  Part p = part_of(1.9875691500e-4F);
  for (std::size_t i = 0; i < sizeof kCoefficients / sizeof(float); ++i) p = fused(p, r, part_of(kCoefficients[i]));
  p = fused(p, r * r, r) + part_of(1.0F);
  const IntPart integer = __builtin_convertvector(n, IntPart);
  const IntPart exponent = (integer + 127) << 23;
  Part power;
  std::memcpy(&power, &exponent, sizeof power);
  return x < part_of(kLeast) ? Part{} : p * power;
}
inline Wide exp_of(const Wide& x) {
  return each([](Part part) { return exp_of(part); }, x);
}

// tanh(x), within 1e-7.
inline Wide tanh_of(const Wide& x) {
  const Wide e = exp_of(all(-2.0F) * magnitude(x));
  const Wide result = (all(1.0F) - e) / (all(1.0F) + e);
  return each([](Part a, Part b) { return a < 0 ? -b : b; }, x, result);
}

}  // namespace
}  // namespace depthkv
