#!/usr/bin/env python3
"""Reads every file below DATA with PyTorch's DataLoader, EPOCHS times, and prints the rate of each epoch."""

import os
import pathlib
import time
import zlib

import torch
from torch.utils.data import DataLoader, Dataset

DATA = pathlib.Path(os.environ.get("DATA", "/data/share"))
WORKERS = int(os.environ.get("WORKERS", "4"))
EPOCHS = int(os.environ.get("EPOCHS", "3"))


class Files(Dataset):
    """One sample per file: its bytes and their checksum."""

    def __init__(self, root):
        self.paths = sorted(p for p in root.rglob("*") if p.is_file() and "lost+found" not in p.parts)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        content = self.paths[index].read_bytes()
        return torch.frombuffer(bytearray(content or b"\0"), dtype=torch.uint8), len(content), zlib.crc32(content)


def main():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    files = Files(DATA)
    if not files.paths:
        raise SystemExit(f"{DATA} holds no files")
    loader = DataLoader(files, batch_size=None, num_workers=WORKERS, shuffle=True)
    for epoch in range(EPOCHS):
        start, size, digest = time.monotonic(), 0, 0
        for content, length, crc in loader:
            content.to(device, non_blocking=True)
            size += length
            digest ^= crc
        seconds = time.monotonic() - start
        print(
            f"epoch {epoch}: {len(files)} files, {size / 2**20:.1f} MiB in {seconds:.2f} s, "
            f"{size / 2**20 / seconds:.1f} MiB/s on {device}, checksum {digest:08x}",
            flush=True,
        )


if __name__ == "__main__":
    main()
