// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace depthkv {

// The work failed. The message is one sentence: which file or key, what was found, what was expected, what to do.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The command, plan or input given by the user was wrong; the command line exits with 2 instead of 1.
class InputError : public Error {
 public:
  using Error::Error;
};

// A policy can't carry out a budget: replay skips the row, whoever needs it to stops.
class InfeasibleBudget : public InputError {
 public:
  using InputError::InputError;
};

// " (did you mean \"window\"?)" when a known name is near, else "". For messages about unknown keys and names.
std::string suggestion(std::string_view found, const std::vector<std::string>& known);

}  // namespace depthkv
