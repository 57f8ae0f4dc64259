"""Found by every Python that has this folder on its path, Ray's workers among them: lets torchvision be imported where
its compiled part does not load.

What transformers uses of torchvision is written in Python; but it describes two operators of the compiled part, which
must have been declared by then. Nothing is declared where that part loads, or where nobody imports torchvision.
"""

import importlib.abc
import importlib.util
import sys


class _Declaring(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path, target=None):  # type: ignore[no-untyped-def]
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            spec = importlib.util.find_spec(fullname)
            if spec is not None and spec.submodule_search_locations:
                _declare(spec.submodule_search_locations[0])
        return None


_LIBRARIES: list[object] = []  # what was declared is forgotten with the library object


def _declare(folder: str) -> None:
    import torch

    if hasattr(torch.ops.torchvision, "nms"):
        return
    try:
        torch.ops.load_library(f"{folder}/_C.so")
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)


sys.meta_path.insert(0, _Declaring())
