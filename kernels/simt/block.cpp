// SPDX-License-Identifier: Apache-2.0
#include "kernels/simt/block.h"

#include <bit>
#include <utility>

#include "depthkv/error.h"
#include "kernels/simt/device_names.h"
#include "kernels/simt/sanitizers.h"

constinit thread_local uint3 threadIdx;
constinit thread_local uint3 blockIdx;
constinit thread_local dim3 blockDim;
constinit thread_local dim3 gridDim;

namespace depthkv::simt {

constinit thread_local Block* current_block = nullptr;

namespace {

struct Unwound {};  // thrown on a thread's stack when its block is given up

std::uint64_t mixed(std::uint64_t& state) {  // splitmix64
  std::uint64_t x = state += 0x9e3779b97f4a7c15U;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9U;
  x = (x ^ x >> 27) * 0x94d049bb133111ebU;
  return x ^ x >> 31;
}

const char* name_of(Ask what) {
  switch (what) {
    case Ask::block_barrier:
      return "__syncthreads";
    case Ask::warp_barrier:
      return "__syncwarp";
    case Ask::shuffle:
      return "a shuffle";
    case Ask::vote:
      return "a vote";
    default:
      return "shared memory";
  }
}

std::string hex(unsigned mask) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text = "0x";
  for (int shift = 28; shift >= 0; shift -= 4) text += kDigits[mask >> shift & 15U];
  return text;
}

std::string place(const std::source_location& where) {
  return std::string(where.file_name()) + ":" + std::to_string(where.line());
}

bool same_place(const Request& a, const Request& b) {
  return a.what == b.what && a.where.line() == b.where.line() && a.where.column() == b.where.column() &&
         std::string_view(a.where.file_name()) == b.where.file_name();
}

uint3 index_in(dim3 extent, unsigned i) { return {i % extent.x, i / extent.x % extent.y, i / extent.x / extent.y}; }

std::string text_of(uint3 at) {
  return "(" + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " + std::to_string(at.z) + ")";
}

}  // namespace

void Block::run(const Launch& launch, uint3 index, void (*body)(const void*), const void* arguments,
                std::uint64_t seed) {
  start(launch, index, seed);
  body_ = body;
  arguments_ = arguments;
  current_block = this;
  try {
    while (ended_ < count_) {
      const int thread = pick();
      if (thread < 0) throw Error(deadlock());
      take_turn(thread);
      serve(thread);
    }
    tsan_acquire(&end_order_);
    shared_.check();
  } catch (...) {
    unwind();
    current_block = nullptr;
    throw;
  }
  current_block = nullptr;
}

void Block::start(const Launch& launch, uint3 index, std::uint64_t seed) {
  launch_ = launch;
  index_ = index;
  seed_ = seed;
  random_ = seed;
  count_ = static_cast<int>(launch.block.x * launch.block.y * launch.block.z);
  ended_ = 0;
  at_barrier_ = 0;
  unwinding_ = false;
  failure_ = nullptr;
  warps_ = {};
  ready_ = {};
  blockIdx = index;
  blockDim = launch.block;
  gridDim = launch.grid;
  shared_.begin(launch.shared_bytes);
  fibers_.begin();
  for (int i = 0; i < count_; ++i) {
    threads_[static_cast<std::size_t>(i)] = {};
    fibers_.start(i, &Block::enter, this);
    set_ready(i);
  }
  tsan_release(&begin_order_);
}

void Block::enter(void* block, int thread) {
  auto* self = static_cast<Block*>(block);
  tsan_acquire(&self->begin_order_);
  try {
    self->body_(self->arguments_);
  } catch (const Unwound&) {
  } catch (...) {
    self->failure_ = std::current_exception();
  }
  self->threads_[static_cast<std::size_t>(thread)].state = State::ended;
  tsan_release(&self->end_order_);
}

std::uint64_t Block::ask(const Request& request) {
  Thread& thread = threads_[static_cast<std::size_t>(running_)];
  void* order = order_of(running_, request);
  thread.request = request;
  if (order != nullptr) tsan_release(order);
  fibers_.suspend();
  if (unwinding_) throw Unwound{};
  if (request.what == Ask::static_shared) tsan_acquire(&begin_order_);  // the scheduler may just have filled it
  if (order != nullptr) tsan_acquire(order);
  return thread.answer;
}

// What the request orders: whoever arrives there before whoever leaves. Shuffles and votes order no memory. Barriers of
// a block take turns with two addresses, since a thread may arrive at the next before another has left this one.
void* Block::order_of(int thread, const Request& request) {
  if (request.what == Ask::block_barrier)
    return &barrier_order_[static_cast<std::size_t>(threads_[static_cast<std::size_t>(thread)].barriers++ & 1)];
  if (request.what == Ask::warp_barrier)
    return &warps_[static_cast<std::size_t>(thread / kLanes)]
                .order[static_cast<std::size_t>(meeting_of(thread, request.mask))];
  return nullptr;
}

void Block::set_ready(int thread) {
  threads_[static_cast<std::size_t>(thread)].state = State::ready;
  ready_[static_cast<std::size_t>(thread / 64)] |= std::uint64_t{1} << thread % 64;
}

// The next ready thread at or after a starting point, which is the lowest thread, any, or (odd seeds) in the warp that
// ran last. -1: none is ready.
int Block::pick() {
  int from = 0;
  if (seed_ != 0) {
    from = static_cast<int>(mixed(random_) % static_cast<unsigned>(count_));
    const int warp = running_ / kLanes;
    const auto in_warp = static_cast<unsigned>(ready_[static_cast<std::size_t>(warp / 2)] >> warp % 2 * kLanes);
    if (seed_ % 2 == 1 && in_warp != 0) {
      const auto turned = std::rotr(in_warp, from % kLanes);
      return warp * kLanes + (std::countr_zero(turned) + from % kLanes) % kLanes;
    }
  }
  constexpr int kWords = kMostThreads / 64;
  for (int i = 0; i <= kWords; ++i) {
    const int word = (from / 64 + i) % kWords;
    std::uint64_t bits = ready_[static_cast<std::size_t>(word)];
    if (i == 0) bits &= ~std::uint64_t{0} << from % 64;
    if (bits != 0) return word * 64 + std::countr_zero(bits);
  }
  return -1;
}

void Block::take_turn(int thread) {
  ready_[static_cast<std::size_t>(thread / 64)] &= ~(std::uint64_t{1} << thread % 64);
  running_ = thread;
  threads_[static_cast<std::size_t>(thread)].begun = true;
  threadIdx = index_in(launch_.block, static_cast<unsigned>(thread));
  fibers_.resume(thread);
}

void Block::serve(int thread) {
  if (failure_ != nullptr) std::rethrow_exception(failure_);
  Thread& asking = threads_[static_cast<std::size_t>(thread)];
  if (asking.state == State::ended) return end(thread);
  asking.state = State::waiting;
  const Request& request = asking.request;
  switch (request.what) {
    case Ask::block_barrier:
      return serve_barrier(thread);
    case Ask::static_shared:
      asking.answer = reinterpret_cast<std::uint64_t>(shared_.named(request.key, request.name, request.value));
      tsan_release(&begin_order_);
      return set_ready(thread);
    case Ask::dynamic_shared:
      asking.answer = reinterpret_cast<std::uint64_t>(shared_.dynamic());
      return set_ready(thread);
    default:
      return serve_warp(thread);
  }
}

// Stricter than hardware, which lets threads that have returned out of a barrier: the next change to such a kernel is a
// hang, and no kernel needs it.
void Block::serve_barrier(int thread) {
  if (ended_ > 0) fail(thread, "waits at a barrier that threads which have returned will not reach");
  for (int i = 0; i < count_; ++i) {
    const Thread& other = threads_[static_cast<std::size_t>(i)];
    if (other.state != State::waiting || other.request.what != Ask::block_barrier) continue;
    if (!same_place(other.request, threads_[static_cast<std::size_t>(thread)].request))
      fail(thread, "reaches this barrier while thread " + name(i) + " waits at another, " + place(other.request.where));
    break;  // all that wait there wait at the same
  }
  if (++at_barrier_ < count_) return;
  at_barrier_ = 0;
  for (int i = 0; i < count_; ++i) set_ready(i);
}

int Block::warp_threads(int warp) const { return std::min(kLanes, count_ - warp * kLanes); }

void Block::check_mask(int thread) const {
  const int warp = thread / kLanes;
  const unsigned mask = threads_[static_cast<std::size_t>(thread)].request.mask;
  const int threads = warp_threads(warp);
  const unsigned there = threads == kLanes ? ~0U : (1U << threads) - 1;
  const unsigned ended = warps_[static_cast<std::size_t>(warp)].ended;
  if ((mask >> thread % kLanes & 1U) == 0)
    fail(thread, "isn't in its own mask " + hex(mask) + "; name all lanes that call this");
  if ((mask & ~there) != 0)
    fail(thread, "has mask " + hex(mask) + ", but its warp has " + std::to_string(threads) + " threads");
  if ((mask & ended) != 0)
    fail(thread, "has mask " + hex(mask) + ", but lane " + std::to_string(std::countr_zero(mask & ended)) +
                     " of it has returned");
  const Request& request = threads_[static_cast<std::size_t>(thread)].request;
  if (request.what == Ask::shuffle && (request.source < 0 || (mask >> request.source & 1U) == 0))
    fail(thread, "reads from lane " + std::to_string(request.source) + ", which isn't in mask " + hex(mask));
}

// The meeting that lanes of this mask are at, or a free one.
int Block::meeting_of(int thread, unsigned mask) const {
  const auto& meetings = warps_[static_cast<std::size_t>(thread / kLanes)].meetings;
  int free = 0;
  for (int i = kLanes; i-- > 0;) {
    if ((meetings[static_cast<std::size_t>(i)].mask & mask) != 0) return i;
    if (meetings[static_cast<std::size_t>(i)].mask == 0) free = i;
  }
  return free;
}

void Block::check_meeting(int thread, const Meeting& meeting) const {
  const Request& request = threads_[static_cast<std::size_t>(thread)].request;
  const int first = thread / kLanes * kLanes + std::countr_zero(meeting.arrived);
  const Request& other = threads_[static_cast<std::size_t>(first)].request;
  if (meeting.mask != request.mask)
    fail(thread, "has mask " + hex(request.mask) + " while thread " + name(first) + " waits with mask " +
                     hex(meeting.mask) + " at " + place(other.where) + "; masks must be equal or apart");
  if (!same_place(other, request))
    fail(thread, "reaches " + std::string(name_of(request.what)) + " while thread " + name(first) +
                     " of the same mask waits at " + name_of(other.what) + ", " + place(other.where));
}

void Block::serve_warp(int thread) {
  check_mask(thread);
  Warp& warp = warps_[static_cast<std::size_t>(thread / kLanes)];
  const unsigned mask = threads_[static_cast<std::size_t>(thread)].request.mask;
  Meeting& meeting = warp.meetings[static_cast<std::size_t>(meeting_of(thread, mask))];
  if (meeting.mask != 0) check_meeting(thread, meeting);
  meeting.mask = mask;
  meeting.arrived |= 1U << thread % kLanes;
  if (meeting.arrived == mask) publish(thread / kLanes, meeting);
}

void Block::publish(int warp, Meeting& meeting) {
  const int first = warp * kLanes;
  const auto thread_at = [&](int lane) -> Thread& { return threads_[static_cast<std::size_t>(first + lane)]; };
  std::uint64_t votes = 0;
  for (int lane = 0; lane < kLanes; ++lane)
    if ((meeting.mask >> lane & 1U) != 0) votes |= thread_at(lane).request.value << lane;
  for (int lane = 0; lane < kLanes; ++lane) {
    if ((meeting.mask >> lane & 1U) == 0) continue;
    Thread& thread = thread_at(lane);
    thread.answer = thread.request.what == Ask::shuffle ? thread_at(thread.request.source).request.value : votes;
    set_ready(first + lane);
  }
  meeting = {};
}

void Block::end(int thread) {
  ++ended_;
  Warp& warp = warps_[static_cast<std::size_t>(thread / kLanes)];
  warp.ended |= 1U << thread % kLanes;
  for (int i = 0; i < count_ && at_barrier_ > 0; ++i) {
    const Thread& other = threads_[static_cast<std::size_t>(i)];
    if (other.state == State::waiting && other.request.what == Ask::block_barrier)
      fail(i, "waits at a barrier, but thread " + name(thread) + " has returned without reaching it");
  }
  for (const Meeting& meeting : warp.meetings) {
    if ((meeting.mask >> thread % kLanes & 1U) == 0) continue;
    const int waiting = thread / kLanes * kLanes + std::countr_zero(meeting.arrived);
    fail(waiting, "waits with mask " + hex(meeting.mask) + ", but thread " + name(thread) +
                      " of it has returned without getting there");
  }
}

// Threads that have begun own what is on their stacks.
void Block::unwind() {
  unwinding_ = true;
  for (int i = 0; i < count_; ++i) {
    running_ = i;
    while (threads_[static_cast<std::size_t>(i)].begun && !fibers_.ended(i)) fibers_.resume(i);
  }
  tsan_acquire(&end_order_);
}

std::string Block::name(int thread) const { return text_of(index_in(launch_.block, static_cast<unsigned>(thread))); }

void Block::fail(int thread, const std::string& what) const {
  const Request& request = threads_[static_cast<std::size_t>(thread)].request;
  throw Error(place(request.where) + ": " + name_of(request.what) + ": block " + text_of(index_) + ", thread " +
              name(thread) + " " + what);
}

// Every place where threads wait, with how many and the first of them.
std::string Block::deadlock() const {
  std::string text = "deadlock: block " + text_of(index_) + " of the launch at " + place(launch_.where) + ":";
  for (int i = 0; i < count_; ++i) {
    const Thread& thread = threads_[static_cast<std::size_t>(i)];
    if (thread.state != State::waiting) continue;
    int alike = 0;
    bool first = true;
    for (int j = 0; j < count_; ++j) {
      const Thread& other = threads_[static_cast<std::size_t>(j)];
      if (other.state != State::waiting || !same_place(thread.request, other.request)) continue;
      first = first && j >= i;
      ++alike;
    }
    if (!first) continue;
    text += " " + std::to_string(alike) + " threads, the first of them " + name(i) + ", wait in " +
            name_of(thread.request.what) + " at " + place(thread.request.where) + ";";
  }
  text.back() = '.';
  return text;
}

}  // namespace depthkv::simt
