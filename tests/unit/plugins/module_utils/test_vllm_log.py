"""What a vLLM log says, in the engine's own words."""

import pathlib
import re

import pytest

from ansible_collections.gpuhosts.inference.plugins.module_utils import vllm_log
from ansible_collections.gpuhosts.inference.plugins.plugin_utils.planner import calibration

FIXTURES = pathlib.Path(__file__).parents[2] / "fixtures" / "vllm_log"
LOGS = {path.stem: path.read_text(encoding="utf-8") for path in FIXTURES.glob("*.log")}

VERSION = "INFO 11-22 02:25:17 [api_server.py:1043] vLLM API server version 0.8.5\n"
LOADING = VERSION + "INFO 11-22 02:25:24 [model_runner.py:1108] Starting to load model /model...\n"
LOADED = LOADING + "INFO 11-22 02:25:41 [model_runner.py:1140] Model loading took 4.5000 GiB and 11.123456 seconds\n"
SIZED = LOADED + "INFO 11-22 02:25:52 [executor_base.py:112] # cuda blocks: 26370, # CPU blocks: 58254\n"
SERVING = SIZED + "INFO:     Application startup complete.\n"
OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 100.00 MiB. GPU 2 has a total capacity of 21.48 GiB of which 45.00 MiB is free. "
    "Including non-PyTorch memory, this process has 21.43 GiB memory in use."
)
ENGINE_DIED = "\nRuntimeError: Engine process failed to start. See stack trace for the root cause.\n"


def first(text, exit_status=None):
    found = vllm_log.causes(text, exit_status)
    return (found[0]["code"], found[0]["message"]) if found else (None, "")


@pytest.mark.parametrize(
    ("log", "code", "words"),
    [
        (
            "oom_2080ti",
            "out_of_memory",
            "card 0 of the engine ran out of memory while the weights were loaded: 518.00 MiB were wanted, 4.06 MiB of 21.67 GiB were free",
        ),
        ("kv_too_small_v1", "kv_cache_too_small", "one sequence of max_model_len 40960 needs 4.38 GiB of KV cache, and there are 1.0 GiB"),
        ("awq_not_seen", "wrong_quantization", "made no place: model.layers.0.attention.wqkv.qweight"),
        ("tensor_parallel_alignment", "bad_argument", "cannot be divided"),
        ("port_after_start", "port_taken", "port 44319 is taken"),
        ("port_before_start", "port_taken", "the port is taken"),
        ("nccl_error", "nccl_error", "unhandled system error"),
        ("nccl_hang_start", "nccl_hang", "the start stopped where the cards connect"),
        ("nccl_hang_serving", "nccl_hang", "no longer answers the others"),
        ("driver_too_old", "driver_too_old", "too old for this engine"),
        ("card_in_use", "card_in_use", "only 17.1 of 22.05 GiB are free on a card, and gpu_memory_utilization 0.92 wants more"),
        ("started_2080ti", None, ""),
        ("started_v1", None, ""),
    ],
)
def test_real_logs(log, code, words):
    found, message = first(LOGS[log])
    assert found == code
    assert words in message


# For every cause the engine's words, with what the message must say.
LINES = [
    (
        VERSION,
        "ValueError: Too large swap space. 256.00 GiB out of the 251.40 GiB total CPU memory is allocated for the swap space.",
        "bad_argument",
        "256.00 GiB",
    ),
    (
        SERVING,
        "ray_cluster: the worker box2 (10.0.0.2) was lost: missed heartbeats. The engine cannot go on without it: all members start again",
        "worker_lost",
        "the worker box2 (10.0.0.2) was lost: missed heartbeats",
    ),
    ("", "ray_cluster: not started, for box2 (10.0.0.2) did not join within 120 s: see journalctl", "worker_missing", "box2 (10.0.0.2) did not join"),
    (VERSION, "ValueError: Total number of attention heads (40) must be divisible by tensor parallel size (3).", "bad_argument", "40 attention heads"),
    (VERSION, "NotImplementedError: VLLM_USE_V1=1 is not supported with Compute Capability < 8.0.", "bad_argument", "Compute Capability < 8"),
    (
        VERSION,
        "ValueError: User-specified max_model_len (65536) is greater than the derived max_model_len (max_position_embeddings=40960 or model_max_length=None)",
        "bad_argument",
        "65536 is longer",
    ),
    (
        VERSION,
        "ValueError: max_num_batched_tokens (2048) is smaller than max_model_len (4096). This effectively limits",
        "bad_argument",
        "2048 is smaller than",
    ),
    ("usage: api_server.py [-h]\n", "api_server.py: error: unrecognized arguments: --xformers --pip 2", "bad_argument", "unrecognized arguments: --xformers"),
    ("", "vllm serve: error: argument --dtype: invalid choice: 'int3'", "bad_argument", "invalid choice"),
    (VERSION, "KeyError: 'invalid tool call parser: qwen3 (chose from { hermes })'", "bad_argument", "invalid tool call parser: qwen3"),
    (VERSION, "OSError: [Errno 98] Address already in use", "port_taken", "taken"),
    (
        "",
        "docker: Error response from daemon: driver failed programming external connectivity on endpoint vllm-coder (8a1b): "
        "Bind for 127.0.0.1:8888 failed: port is already allocated.",
        "port_taken",
        "port 8888 is taken",
    ),
    (
        "",
        "docker: Error response from daemon: failed to set up container networking: driver failed programming external connectivity on endpoint vllm-coder "
        "(8a1b): failed to bind host port for 0.0.0.0:8888:172.17.0.2:8000/tcp: address already in use",
        "port_taken",
        "port is taken",
    ),
    ("", "Error starting userland proxy: listen tcp4 0.0.0.0:8888: bind: address already in use", "port_taken", "port 8888 is taken"),
    (LOADING, "OSError: [Errno 28] No space left on device: '/root/.cache/vllm/torch_compile_cache'", "no_disk", "disk is full"),
    (
        VERSION,
        "NCCL WARN Error while creating shared memory segment /dev/shm/nccl-5Bp3 (size 9637888), error: No space left on device",
        "nccl_error",
        "/dev/shm",
    ),
    (LOADING, "RuntimeError: Cannot find any model weights with `/home/llm/model/qwen/Qwen3`", "missing_checkpoint", "/home/llm/model/qwen/Qwen3"),
    (LOADING, "safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer", "missing_checkpoint", "MetadataIncompleteBuffer"),
    (VERSION, "ValueError: Invalid repository ID or local directory specified: '/model'.", "missing_checkpoint", "/model"),
    (
        LOADING,
        "FileNotFoundError: [Errno 2] No such file or directory: '/model/model-00002-of-00004.safetensors'",
        "missing_checkpoint",
        "model-00002-of-00004.safetensors",
    ),
    (LOADING, "ValueError: Following weights were not initialized from checkpoint: {'lm_head.weight'}", "missing_checkpoint", "lm_head.weight"),
    (
        VERSION,
        "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': '/models/x'.",
        "missing_checkpoint",
        "/models/x",
    ),
    (VERSION, "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached snapshot folder", "missing_checkpoint", "no complete"),
    ("", "Failed to initialize NVML: Driver/library version mismatch", "driver_mismatch", "another version"),
    (VERSION, "RuntimeError: The NVIDIA driver on your system is too old (found version 12080). Please update your GPU driver", "driver_too_old", "CUDA 12080"),
    (
        "",
        "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=13.0, please update your driver to a newer version: unknown",
        "driver_too_old",
        "too old",
    ),
    (LOADED, "RuntimeError: CUDA error: no kernel image is available for execution on the device", "no_kernel_image", "no code for this card"),
    (
        VERSION,
        "ERROR 11-22 02:25:17 [engine.py:448] ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. "
        "Your NVIDIA GeForce RTX 2080 Ti GPU has compute capability 7.5. You can use float16 instead",
        "bfloat16",
        "NVIDIA GeForce RTX 2080 Ti cannot",
    ),
    (VERSION, "ValueError: torch.bfloat16 is not supported for quantization method awq. Supported dtypes: [torch.float16]", "bfloat16", "awq"),
    (VERSION, "ValueError: The model type 'gemma2' does not support float16. Reason: Numerical instability.", "bfloat16", "'gemma2' needs bfloat16"),
    (
        VERSION,
        "ValueError: Quantization method specified in the model config (gptq) does not match the quantization method specified in the `quantization` "
        "argument (awq).",
        "wrong_quantization",
        "quantised with gptq, and options.quantization says awq",
    ),
    (LOADING, "KeyError: 'layers.5.mlp.down_proj.weight'", "wrong_quantization", "layers.5.mlp.down_proj.weight"),
    (
        LOADING,
        "ValueError: The quantization method compressed-tensors is not supported for the current GPU. Minimum capability: 80. Current capability: 75.",
        "wrong_quantization",
        "needs compute capability 80, the card has 75",
    ),
    (
        LOADING,
        "RuntimeError: ('Quantization scheme is not supported for ', 'the current GPU. Min capability: 80. ', 'Current capability: 75.')",
        "wrong_quantization",
        "needs compute capability 80, the card has 75",
    ),
    (VERSION, "ValueError: Cannot find the config file for awq", "wrong_quantization", "says awq"),
    (
        VERSION,
        "RuntimeError: please set tensor_parallel_size (4) to less than max local gpu count (2)",
        "too_few_cards",
        "4 cards are wanted, and the engine sees 2",
    ),
    (VERSION, "RuntimeError: please ensure that world_size (8) is less than than max local gpu count (4)", "too_few_cards", "8 cards are wanted"),
    (VERSION, "ValueError: World size (4) is larger than the number of available GPUs (2) in this node. If this is intentional", "too_few_cards", "sees 2"),
    ("", 'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].', "too_few_cards", "its cards"),
    (VERSION, "RuntimeError: No CUDA GPUs are available", "too_few_cards", "does not see the cards"),
    (SERVING, "Failed to initialize NVML: Unknown Error", "too_few_cards", "does not see the cards"),
    (SERVING, "error: Unsupported conversion from f16 to f16", "triton_kernel", "Triton cannot"),
    (
        SERVING,
        "triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 81920, Hardware limit: 65536. Reducing block sizes",
        "triton_kernel",
        "wants 81920 bytes of shared memory, the card has 65536",
    ),
    (LOADED, "RuntimeError: FlashAttention only supports Ampere GPUs or newer.", "attention_backend", "attention backend"),
    (LOADED, "AssertionError: Error in memory profiling. Initial used memory 1, currently used memory 0.", "card_in_use", "another process"),
    (
        SIZED,
        "ValueError: The model's max seq len (32768) is larger than the maximum number of tokens that can be stored in KV cache (10272). Try increasing",
        "kv_cache_too_small",
        "max_model_len 32768 does not fit into the KV cache of 10272 tokens",
    ),
    (SIZED, "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`", "no_kv_blocks", "no memory for the KV cache"),
    (
        LOADED,
        OOM,
        "out_of_memory",
        "card 2 of the engine ran out of memory while its memory was profiled: 100.00 MiB were wanted, 45.00 MiB of 21.48 GiB were free",
    ),
    (SIZED, OOM, "out_of_memory", "after the KV cache was made"),
    (SERVING, OOM, "out_of_memory", "while it served"),
    (SIZED, "RuntimeError: CUDA error: out of memory", "out_of_memory", "ran out of memory after"),
    (LOADED, "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "out_of_memory", "profiled"),
    (
        SIZED,
        OOM + "\nRuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy requests. Please try lowering `max_num_seqs`",
        "out_of_memory",
        "the sampler was tried with 1024 requests",
    ),
    ("", "vllm-coder.service: A process of this unit has been killed by the OOM killer.", "host_memory", "the host's memory was full"),
    (LOADING, "vllm-coder.service: Main process exited, code=exited, status=137/n/a", "host_memory", "SIGKILL"),
    (LOADING, "ERROR 11-22 02:25:17 [multiproc_worker_utils.py:120] Worker VllmWorkerProcess pid 60 died, exit code: -9", "host_memory", "SIGKILL"),
    (SERVING, "RuntimeError: CUDA error: an illegal memory access was encountered", "cuda_error", "an illegal memory access was encountered"),
    (SERVING, "torch.AcceleratorError: CUDA error: unspecified launch failure", "cuda_error", "unspecified launch failure"),
    (VERSION, "RuntimeError: NCCL error: unhandled cuda error (run with NCCL_DEBUG=INFO for details)", "nccl_error", "unhandled cuda error"),
    (
        SERVING,
        "[rank1]:[E127 00:00:00.1 ProcessGroupNCCL.cpp:629] [Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7)",
        "nccl_hang",
        "no longer",
    ),
    (SERVING, "TimeoutError: RPC call to execute_model timed out.", "nccl_hang", "no longer"),
    (LOADING, "AttributeError: 'Qwen3Config' object has no attribute 'head'", "unknown", "'Qwen3Config' object has no attribute 'head'"),
]


@pytest.mark.parametrize(("before", "line", "code", "words"), LINES)
def test_a_line_is_understood(before, line, code, words):
    found = vllm_log.causes(before + line + "\n")
    assert [cause["code"] for cause in found] == [code]
    assert words in found[0]["message"]
    assert found[0]["remedy"].endswith(".")
    assert not re.search(r"\{\w+\}", found[0]["remedy"] + found[0]["message"])
    assert found[0]["line"] in line


@pytest.mark.parametrize(("before", "line", "code", "words"), LINES)
def test_a_line_that_somebody_else_said_is_not_understood(before, line, code, words):
    """The same words in the prompt of a request, in what the engine only mentions, and before a start that succeeded."""
    quoted = f"INFO 11-22 03:00:00 [logger.py:39] Received request chatcmpl-1: prompt: 'why {line!r}', params: SamplingParams(n=1)\n"
    access = 'INFO:     127.0.0.1:4242 - "POST /v1/chat/completions?why=CUDA+out+of+memory HTTP/1.1" 200 OK\n'
    assert vllm_log.causes(SERVING + quoted + access) == []
    assert vllm_log.causes(VERSION + f"INFO 11-22 02:25:24 [x.py:1] {before.splitlines()[-1:]}\n") == []
    assert vllm_log.causes(before + line + "\n" + SERVING) == []
    assert vllm_log.causes(LOADING + line + "\n" + SERVING.replace(VERSION, "")) == []


def test_every_cause_of_the_contract_has_a_line():
    wanted = {rule.code for rule in (*vllm_log.RULES, vllm_log.HANG, vllm_log.UNKNOWN)}
    assert {code for dummy, dummy, code, dummy in LINES} == wanted
    contract = (
        "out_of_memory kv_cache_too_small no_kv_blocks nccl_hang nccl_error bfloat16 no_kernel_image wrong_quantization no_disk port_taken "
        "missing_checkpoint bad_argument too_few_cards driver_too_old host_memory unknown"
    )
    assert wanted >= set(contract.split())


def test_warnings_are_not_causes():
    log = LOADED + (
        "WARNING 11-22 02:25:27 [config.py:2972] Your device 'NVIDIA GeForce RTX 2080 Ti' (with compute capability 7.5) doesn't support torch.bfloat16.\n"
        "INFO 11-22 02:25:52 [model_runner.py:1450] Capturing cudagraphs for decoding. If out-of-memory error occurs during cudagraph capture, consider "
        "decreasing `gpu_memory_utilization`.\n"
        "WARNING 11-22 02:25:27 [launcher.py:131] port 8888 is used by process psutil.Process(pid=1) launched with command:\n"
    )
    assert vllm_log.causes(log) == []
    assert not vllm_log.is_oom(log)


def test_one_request_that_failed_is_not_a_dead_engine():
    log = (
        SERVING
        + "ERROR:    Exception in ASGI application\nTraceback (most recent call last):\njinja2.exceptions.TemplateError: Conversation roles must alternate\n"
    )
    assert vllm_log.causes(log) == []
    died = log + "vllm-coder.service: Main process exited, code=exited, status=1/FAILURE\n"
    assert first(died)[0] == "unknown"


def test_the_source_text_of_a_traceback_says_nothing():
    log = LOADED + '    raise RuntimeError(f"NCCL error: {error_str}")\n        raise ValueError("No available memory for the cache blocks. "\n'
    assert vllm_log.causes(log) == []


def test_a_rank_that_answered_again():
    waits = "(EngineCore pid=741915) INFO 05-19 18:59:04 [shm_broadcast.py:698] No available shared memory broadcast block found in 60 seconds.\n"
    answer = 'INFO:     127.0.0.1:4242 - "POST /v1/chat/completions HTTP/1.1" 200 OK\n'
    assert first(SERVING + waits)[0] == "nccl_hang"
    assert first(SERVING + waits + answer)[0] is None
    assert first(SERVING + answer + waits)[0] == "nccl_hang"


def test_the_most_specific_cause_comes_first():
    log = LOADED + OOM + "\nRuntimeError: NCCL error: unhandled cuda error\nValueError: No available memory for the cache blocks.\n"
    assert [cause["code"] for cause in vllm_log.causes(log)] == ["no_kv_blocks", "out_of_memory", "nccl_error"]


def test_a_restart_is_explained_by_what_came_before_it():
    """A unit that restarts: the new start has said nothing yet."""
    failed = "Started vllm-coder.service - vLLM coder: Qwen.\n" + LOADING + OOM + ENGINE_DIED + "vllm-coder.service: Failed with result 'exit-code'.\n"
    assert first(failed + "Started vllm-coder.service - vLLM coder: Qwen.\n" + VERSION)[0] == "out_of_memory"
    assert first(failed + "Started vllm-coder.service - vLLM coder: Qwen.\n" + SERVING)[0] is None
    silent = failed + "Started vllm-coder.service - vLLM coder: Qwen.\n" + VERSION + "vllm-coder.service: Main process exited, code=exited, status=1/FAILURE\n"
    assert first(silent)[0] is None
    assert not vllm_log.is_oom(silent), "the last start died of something else"


def test_an_older_failure_than_the_bad_argument():
    failed = "Started vLLM coder: Qwen.\n" + LOADING + OOM + ENGINE_DIED
    begun = "Starting vLLM coder: Qwen...\nvllm-coder\nStarted vLLM coder: Qwen.\n"
    changed = failed + begun + "usage: api_server.py [-h]\napi_server.py: error: unrecognized arguments: --pip\n"
    assert [cause["code"] for cause in vllm_log.causes(changed)] == ["bad_argument"]


def test_an_engine_that_was_killed():
    assert first(LOADING, 137) == ("host_memory", vllm_log.KILLED)
    assert first(LOADING + OOM, 137)[0] == "out_of_memory", "Docker kills what does not stop in time"


@pytest.mark.parametrize(
    ("text", "status", "expected"),
    [
        (LOADING + OOM + ENGINE_DIED, 1, True),
        (LOADING + OOM + ENGINE_DIED, None, True),
        (SERVING + OOM, 0, True),  # The server ends with status 0 when its engine dies.
        (SIZED + "ValueError: No available memory for the cache blocks. Try", 1, True),
        (LOGS["kv_too_small_v1"], 1, True),
        (LOADING + OOM, 137, True),
        (LOADING, 137, False),
        (LOADING + "vllm-coder.service: Failed with result 'oom-kill'.", 137, False),
        (LOADING + "vllm-coder.service: A process of this unit has been killed by the OOM killer.", None, False),
        (LOGS["card_in_use"], 1, False),  # A smaller configuration is not what it needs.
        (LOGS["started_2080ti"], 0, False),
        (SERVING, 0, False),
        ("", None, False),
    ],
)
def test_is_oom(text, status, expected):
    assert vllm_log.is_oom(text, status) is expected


def test_progress():
    def at(needle, log="started_2080ti"):
        text = LOGS[log]
        return vllm_log.progress(text[: text.index("\n", text.index(needle))])

    assert vllm_log.progress("") == {"phase": "starting", "detail": "", "share": None}
    assert at("nccl==") == {"phase": "starting", "detail": "", "share": None}
    assert at("Starting to load") == {"phase": "loading weights", "detail": "", "share": None}
    assert at("1/2") == {"phase": "loading weights", "detail": "shards 1/2", "share": 0.5}
    assert at("Model loading took") == {"phase": "profiling", "detail": "", "share": None}
    assert at("# cuda blocks")["phase"] == "kv cache"
    assert at("startup complete") == {"phase": "serving", "detail": "", "share": None}
    assert at("3/5", "started_v1") == {"phase": "loading weights", "detail": "shards 3/5", "share": 0.6}
    assert at("Dynamo", "started_v1") == {"phase": "profiling", "detail": "compiling", "share": None}
    assert at("12/35", "started_v1") == {"phase": "capturing graphs", "detail": "graphs 12/35", "share": 0.343}


def test_progress_of_a_bar_that_returns_the_carriage_and_of_a_second_start():
    shown = "\rCapturing CUDA graph shapes:   0%|          | 0/35 [00:00<?, ?it/s]"
    shown += "\rCapturing CUDA graph shapes:  20%|██        | 7/35 [00:02<00:08,  3.3it/s]"
    assert vllm_log.progress(SIZED + shown)["detail"] == "graphs 7/35"
    assert vllm_log.progress(SERVING + VERSION)["phase"] == "starting"


@pytest.mark.parametrize(
    ("phase", "detail", "words"),
    [
        ("starting", "", "starting"),
        ("loading weights", "shards 3/8", "loading weights, 3 of 8 shards"),
        ("capturing graphs", "graphs 12/35", "capturing graphs, 12 of 35 graphs"),
        ("profiling", "compiling", "profiling, compiling"),
    ],
)
def test_progress_in_words(phase, detail, words):
    assert vllm_log.told({"phase": phase, "detail": detail, "share": None}) == words


@pytest.mark.parametrize("log", ["started_2080ti", "started_v1", "oom_2080ti"])
def test_memory_lines_are_all_that_the_planner_reads(log):
    lines = vllm_log.memory_lines(LOGS[log])
    assert calibration.parse("\n".join(lines)) == calibration.parse(LOGS[log])
    assert len(lines) < 12
    assert not any("api_key" in line for line in lines)


def test_memory_lines_of_the_last_start_only():
    log = LOGS["started_2080ti"] + LOGS["started_2080ti"].replace("26370", "20000").replace("\n", "\r\n")
    assert calibration.parse("\n".join(vllm_log.memory_lines(log)))["gpu_blocks"] == 20000


def test_memory_lines_know_every_pattern_of_the_planner():
    """A line for each of calibration's patterns: none may be left out."""
    lines = [
        "the current vLLM instance can use total_gpu_memory (21.48GiB) x gpu_memory_utilization (0.93) = 19.98GiB",
        "model weights take 3.85GiB; non_torch_memory takes 0.20GiB; PyTorch activation peak memory takes 1.45GiB; the rest of the memory reserved for "
        "KV Cache is 1.0GiB",
        "total_gpu_memory=7.92GiB peak_torch_memory=3.12GiB non_torch_memory=0.47GiB kv_cache_size=3.54GiB",
        "Loading model weights took 7.1 GB",
        "Model loading took 7.1 GiB memory and 12.3 seconds",
        "Available KV cache memory: 4.37 GiB",
        "Free memory on device (21.2/21.48 GiB) on startup. Desired GPU memory utilization is (0.9, 19.3 GiB). Actual usage is 5.7 GiB for weight, "
        "1.2 GiB for peak activation, 0.2 GiB for non-torch memory, and 0.55 GiB for CUDAGraph memory.",
        "Graph capturing finished in 9 secs, took 0.55 GiB",
        "# cuda blocks: 26370, # CPU blocks: 58254",
        "GPU KV cache size: 63,584 tokens",
        "Initializing a V1 LLM engine (v0.19.1) with config: model='/model'",
    ]
    assert vllm_log.memory_lines("\n".join(lines)) == lines
    for name, pattern in calibration.PATTERNS.items():
        assert any(pattern.search(line) for line in lines), name


@pytest.mark.parametrize(
    ("text", "block_size", "expected"),
    [
        (LOGS["started_2080ti"], None, 26370 * 16),
        (LOGS["started_2080ti"], 32, 26370 * 32),
        (LOGS["started_2080ti"].replace("block_size=None", "block_size=8"), None, 26370 * 8),
        (LOGS["started_v1"], None, 63584),
        ("GPU KV cache size: 173,197 tokens, Maximum concurrency for 65,536 tokens per request: 2.64x", None, 173197),
        ("GPU KV cache size: 2,000 tokens\nGPU KV cache size: 1,000 tokens", None, 1000),
        (LOADING, None, None),
        (LOGS["started_2080ti"] + LOADING, None, None),
    ],
)
def test_kv_tokens(text, block_size, expected):
    assert vllm_log.kv_tokens(text, block_size) == expected


@pytest.mark.parametrize(
    "text",
    [
        "args: Namespace(host=None, api_key='sk-secret', block_size=16)",
        "non-default args: {'api_key': ['sk-secret'], 'port': 8000}",
        "Authorization: Bearer sk-secret",
        '{"Authorization": "Bearer sk-secret"}',
        "curl -H 'authorization: bearer sk-secret'",
        "docker run --env VLLM_API_KEY=sk-secret image --api-key sk-secret --model x",
        "HF_TOKEN=sk-secret",
        "hf_ABCDEFGHIJKLMNOPQRSTsk-secret",
    ],
)
def test_masked(text):
    assert "sk-secret" not in vllm_log.masked(text).replace("***-secret", "")
    assert "***" in vllm_log.masked(text)


def test_what_is_no_secret_is_not_masked():
    for text in ("api_key=None, block_size=16", "max_tokens=16, 'total_tokens': 25", "tokenizer='/model', tokenizer_mode=auto"):
        assert vllm_log.masked(text) == text


def test_a_cause_tells_no_secret():
    found = vllm_log.causes(VERSION + "api_server.py: error: unrecognized arguments: --api-key sk-secret --pip\n")
    assert "sk-secret" not in str(found)


def test_lines_are_short_and_the_remedies_speak_of_this_collection():
    for rule in (*vllm_log.RULES, vllm_log.HANG):
        assert not re.search(r"--[a-z]+-[a-z]+-", rule.remedy), "options are written as the inventory has them"
        assert "{what}" not in rule.remedy
    assert len(vllm_log.causes(VERSION + "api_server.py: error: " + "x" * 5000)[0]["line"]) <= 400
