"""Two processes on this machine train as one does: DDP, FSDP2, distributed checkpoints."""

import os
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from support import H, I, N, T, assert_same
from torch import nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import lstm_kernels

PROCESSES, STEPS = 2, 3


class Tagger(nn.Module):
    """A model around an LSTM of either library."""

    def __init__(self, lstm):
        super().__init__()
        self.lstm = lstm
        self.head = nn.Linear(2 * H, 1)

    def forward(self, x):
        return self.head(self.lstm(x)[0]).tanh()


def _model(cls):
    torch.manual_seed(0)
    return Tagger(cls(I, H, num_layers=2, bidirectional=True))


def _losses(model, batches):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    losses = []
    for x in batches:
        optimizer.zero_grad()
        loss = (model(x) - 1).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


def _batches(rank=None):
    """The same batches for all; a rank takes every second sequence."""
    torch.manual_seed(1)
    batches = torch.randn(STEPS, T, 2 * N, I)
    return batches if rank is None else batches[:, :, rank::PROCESSES]


def _same_as_one_process(model, rank):
    losses = torch.stack(_losses(model, _batches(rank)))
    dist.all_reduce(losses)
    assert_same(losses / PROCESSES, torch.stack(_losses(_model(nn.LSTM), _batches())))


def _worker(rank, folder):
    warnings.simplefilter("error")
    # torch.distributed about its own checkpoint format and gloo's host name.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES
    )
    try:
        replicated = DistributedDataParallel(_model(lstm_kernels.LSTM))
        _same_as_one_process(replicated, rank)

        sharded = _model(lstm_kernels.LSTM)
        mesh = init_device_mesh("cpu", (PROCESSES,))
        for module in (sharded.lstm, sharded):
            fully_shard(module, mesh=mesh)
        _same_as_one_process(sharded, rank)

        # Trained shards of ours into a whole nn.LSTM, and back.
        dcp.save(get_model_state_dict(sharded), checkpoint_id=f"{folder}/checkpoint")
        native = _model(nn.LSTM)
        state = native.state_dict()
        dcp.load(state, checkpoint_id=f"{folder}/checkpoint")
        native.load_state_dict(state)
        assert_same(list(native.parameters()), list(replicated.module.parameters()))
        dcp.save(_model(nn.LSTM).state_dict(), checkpoint_id=f"{folder}/native")
        state = get_model_state_dict(sharded)
        dcp.load(state, checkpoint_id=f"{folder}/native")
        whole = [shard.full_tensor() for shard in state.values()]
        assert_same(whole, list(_model(nn.LSTM).parameters()))
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")
def test_two_processes_train_as_one(tmp_path):
    mp.spawn(_worker, args=(str(tmp_path),), nprocs=PROCESSES)
