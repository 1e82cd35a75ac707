"""torch.compile: inductor with frozen weights and max-autotune, channels_last. It needs a C++ compiler."""

from __future__ import annotations

import torch

from benchmarks.peers import torch_eager


class Engine(torch_eager.Engine):
    def prepared(self, module: torch.nn.Module) -> torch.nn.Module:
        from torch._inductor import config

        config.freezing = True  # packs the weights once
        config.cpp.threads = 1
        module.compile(mode="max-autotune-no-cudagraphs")
        return module
