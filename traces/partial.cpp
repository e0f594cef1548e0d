// SPDX-License-Identifier: Apache-2.0
#include "traces/partial.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "depthkv/error.h"

namespace depthkv {
namespace {

[[noreturn]] void fail(const std::filesystem::path& file, const char* what) {
  const int reason = errno;
  throw Error(fmt::format("{}: {} ({}); is the folder there and writable, and the disk not full?", file.string(), what,
                          std::strerror(reason)));
}

// False if another descriptor has the lock.
bool lock_file(int descriptor, bool wait, const std::filesystem::path& file) {
  while (flock(descriptor, LOCK_EX | (wait ? 0 : LOCK_NB)) != 0) {
    if (errno == EWOULDBLOCK) return false;
    if (errno != EINTR) fail(file, "can't be locked");
  }
  return true;
}

// Whoever had the lock before may have renamed or removed the file since it was opened.
bool still_named(int descriptor, const std::filesystem::path& file) {
  struct stat opened {};
  struct stat named {};
  return fstat(descriptor, &opened) == 0 && stat(file.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
         opened.st_dev == named.st_dev;
}

bool is_partial_name(const std::filesystem::path& file) {
  const std::string name = file.filename().string();
  return name.starts_with(".") && (name.ends_with(".h5.partial") || name.ends_with(".json.partial"));
}

void sync_folder(const std::filesystem::path& folder) {
  const int descriptor = open(folder.c_str(), O_RDONLY | O_CLOEXEC);
  const bool synced = descriptor >= 0 && fsync(descriptor) == 0;
  if (descriptor >= 0) close(descriptor);
  if (!synced) fail(folder, "can't be flushed to disk");
}

}  // namespace

PartialFile::PartialFile(const std::filesystem::path& target, IfBusy if_busy)
    : target_(target), path_(target.parent_path() / fmt::format(".{}.partial", target.filename().string())) {
  while (true) {
    descriptor_ = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor_ < 0) fail(target_, "can't be made");
    bool locked = false;
    try {
      locked = lock_file(descriptor_, if_busy == IfBusy::wait, path_);
    } catch (...) {
      close_file();
      throw;
    }
    if (locked && still_named(descriptor_, path_)) return;
    close_file();
    if (!locked) throw TraceBusy(fmt::format("{}: another process is recording it", target_.string()));
  }
}

PartialFile::~PartialFile() {
  if (descriptor_ < 0) return;
  std::error_code ignored;
  std::filesystem::remove(path_, ignored);
  // HDF5 keeps a file open that it failed to write; its room on a full disk is needed now.
  [[maybe_unused]] const int emptied = ftruncate(descriptor_, 0);
  close_file();
}

void PartialFile::publish() {
  if (fsync(descriptor_) != 0) fail(path_, "can't be flushed to disk");
  if (std::rename(path_.c_str(), target_.c_str()) != 0) fail(target_, "can't be made");
  close_file();
  sync_folder(target_.parent_path().empty() ? "." : target_.parent_path());
}

void PartialFile::close_file() {
  close(descriptor_);
  descriptor_ = -1;
}

void for_each_stale_partial(const std::filesystem::path& directory,
                            const std::function<void(const std::filesystem::path&)>& visit) {
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (!is_partial_name(entry.path())) continue;
    const int descriptor = open(entry.path().c_str(), O_RDWR | O_CLOEXEC);
    if (descriptor < 0) continue;
    if (flock(descriptor, LOCK_EX | LOCK_NB) == 0 && still_named(descriptor, entry.path())) visit(entry.path());
    close(descriptor);
  }
}

void remove_stale_partials(const std::filesystem::path& directory) {
  for_each_stale_partial(directory, [](const std::filesystem::path& file) {
    std::error_code ignored;
    std::filesystem::remove(file, ignored);
  });
}

}  // namespace depthkv
