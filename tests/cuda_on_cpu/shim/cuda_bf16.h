// The storage types come with the rest.
#pragma once
#include "cuda_runtime.h"
