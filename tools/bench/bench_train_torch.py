"""Training speed of PyTorch on ResNet8, to compare with `ptq train`: same network, batch, threads.

    python3 tools/bench/bench_train_torch.py [BATCH] [THREADS] [STEPS]
"""
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=0 if stride == 2 else 1)
        self.bn1 = nn.BatchNorm2d(outputs, eps=1e-3)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(outputs, eps=1e-3)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if stride == 2 else nn.Identity()

    def forward(self, x):
        padded = F.pad(x, (0, 1, 0, 1)) if self.stride == 2 else x
        y = F.relu(self.bn1(self.conv1(padded)))
        return F.relu(self.shortcut(x) + self.bn2(self.conv2(y)))


def resnet8():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16, eps=1e-3), nn.ReLU(),
        Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def main():
    batch, threads, steps = (int(a) for a in (sys.argv[1:] + ["128", "2", "30"][len(sys.argv) - 1:]))
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    for layout in (torch.contiguous_format, torch.channels_last):
        net = resnet8().to(memory_format=layout)
        descent = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True,
                                  weight_decay=5e-4)
        images = torch.randn(batch, 3, 32, 32).to(memory_format=layout)
        labels = torch.randint(0, 10, (batch,))
        for step in range(steps + 3):
            if step == 3:
                begin, cpu = time.perf_counter(), time.process_time()
            descent.zero_grad(set_to_none=True)
            F.cross_entropy(net(images), labels).backward()
            descent.step()
        wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
        print("torch %s %s: %.0f images/s, %.0f images per CPU second" % (
            torch.__version__, str(layout).split(".")[-1], steps * batch / wall,
            steps * batch / cpu))


main()
