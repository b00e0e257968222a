"""boto3 against Bedrock's runtime API, through the sidecar.

boto3 signs for the address it dials, so its signature is worth nothing to the real Bedrock behind a
sidecar that passes it on; the fake provider does not check it. Signing anew has scenarios of its own
(tests/sigv4.rs).
"""

import json
import os

# boto3 reads keys, regions, profiles and endpoints from the environment; the test must not.
for variable in list(os.environ):
    if variable.upper().startswith(("AWS_", "BOTO_")):
        del os.environ[variable]
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull

import boto3  # noqa: E402
import botocore.config  # noqa: E402
import botocore.exceptions  # noqa: E402
import urllib3  # noqa: E402

# Marked values: they must reach the provider and must not stay anywhere else.
KEY_ID = "AKIACANARY7C31"
SECRETS = ("aws-secret-canary-7c31", "aws-session-canary-7c31")


def is_bedrock(entry):
    return entry["path"].startswith("/model/")


def check_credentials(entry, check):
    """The client's signature and token reached the provider as they were."""
    headers = dict(entry["headers"])
    signed = headers.get("authorization", "")
    check(signed.startswith(f"AWS4-HMAC-SHA256 Credential={KEY_ID}/"), f"{entry['case']}: authorization is", signed)
    check(headers.get("x-amz-security-token") == SECRETS[1], f"{entry['case']}: the session token is another")


def client_of(case, attempts=1):
    world = case.world
    config = botocore.config.Config(
        retries={"total_max_attempts": attempts, "mode": "standard"}, read_timeout=10, connect_timeout=10
    )
    client = boto3.client(
        "bedrock-runtime",
        endpoint_url=f"http://127.0.0.1:{world.port}{world.bedrock_prefix}",
        region_name="eu-west-1",
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRETS[0],
        aws_session_token=SECRETS[1],
        config=config,
    )

    def add_headers(request, **_):
        for name, value in case.headers().items():
            request.headers[name] = value

    # After signing, so that headers which the sidecar takes away are not part of the signature.
    client.meta.events.register("before-send.bedrock-runtime.*", add_headers)
    return client


def register(scenario, check, equal, failed, prompt):
    """Adds the scenarios to the test's list."""
    talk = [{"role": "user", "content": [{"text": prompt}]}]
    claude = json.dumps(
        {
            "anthropic_version": "bedrock-2023-05-31",
            "max_tokens": 99,
            "messages": [{"role": "user", "content": prompt}],
        }
    )

    def check_text(text):
        check(text.startswith("The lantern keeper of Vell") and text.rstrip().endswith("."), "text is not whole:", text)

    def check_usage(case, usage):
        logged = case.last_usage()
        total = usage["inputTokens"] + usage["cacheReadInputTokens"] + usage["cacheWriteInputTokens"]
        equal((total, usage["outputTokens"]), (logged["input_tokens"], logged["output_tokens"]), "usage seen by the SDK")

    def read_converse_stream(case, model):
        reply = client_of(case).converse_stream(modelId=model, messages=talk)
        events = list(reply["stream"])
        text = "".join(e["contentBlockDelta"]["delta"]["text"] for e in events if "contentBlockDelta" in e)
        return text, events

    @scenario
    def bedrock_converse(case):
        reply = client_of(case).converse(modelId="fake.tide-1", messages=talk)
        case.see(reply["ResponseMetadata"]["HTTPHeaders"])
        check_text(reply["output"]["message"]["content"][0]["text"])
        check_usage(case, reply["usage"])

    @scenario
    def bedrock_converse_of_an_inference_profile(case):
        """boto3 escapes the colons and the slash of an ARN; they must arrive so and name the model."""
        model = "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.fake.tide-1-v1:0"
        client_of(case).converse(modelId=model, messages=talk)
        path = case.entries()[-1]["path"]
        check("%3A" in path and "%2F" in path, "the path at the provider:", path)
        equal(case.entries()[-1]["model"], model, "model")

    @scenario
    def bedrock_converse_cache_reads_and_writes(case):
        reply = client_of(case).converse(modelId="fake.cache-1", messages=talk)
        check_usage(case, reply["usage"])

    @scenario
    def bedrock_converse_stream(case):
        text, events = read_converse_stream(case, "fake.tide-1")
        check_text(text)
        check_usage(case, events[-1]["metadata"]["usage"])

    @scenario
    def bedrock_converse_stream_cache_reads_and_writes(case):
        _, events = read_converse_stream(case, "fake.cache-1")
        check_usage(case, events[-1]["metadata"]["usage"])

    @scenario
    def bedrock_invoke_model(case):
        reply = client_of(case).invoke_model(modelId="fake.cache-1", body=claude)
        body = json.loads(reply["body"].read())
        check_text(body["content"][0]["text"])
        equal(body["usage"]["output_tokens"], case.last_usage()["output_tokens"], "output tokens seen by the SDK")

    @scenario
    def bedrock_invoke_model_with_response_stream(case):
        reply = client_of(case).invoke_model_with_response_stream(modelId="fake.cache-1", body=claude)
        events = [json.loads(event["chunk"]["bytes"]) for event in reply["body"]]
        check_text("".join(e["delta"]["text"] for e in events if e["type"] == "content_block_delta"))
        metrics = events[-1]["amazon-bedrock-invocationMetrics"]
        equal(metrics["outputTokenCount"], case.last_usage()["output_tokens"], "output tokens seen by the SDK")

    @scenario
    def bedrock_count_tokens(case):
        counted = client_of(case).count_tokens(modelId="fake.tide-1", input={"converse": {"messages": talk}})
        check(counted["inputTokens"] >= 100, "input tokens:", counted["inputTokens"])

    def check_error(case, status, code, call):
        case.outcomes = ["error"]
        try:
            call()
        except botocore.exceptions.ClientError as error:
            equal(error.response["ResponseMetadata"]["HTTPStatusCode"], status, "status")
            equal(error.response["Error"]["Code"], code, "code")
            case.see(error.response["ResponseMetadata"]["HTTPHeaders"])
            return
        raise failed("ClientError was not raised")

    @scenario
    def bedrock_error_400(case):
        ask = client_of(case).converse
        check_error(case, 400, "ValidationException", lambda: ask(modelId="fake.error-400", messages=talk))

    @scenario
    def bedrock_error_403_on_a_stream(case):
        ask = client_of(case).converse_stream
        check_error(case, 403, "AccessDeniedException", lambda: ask(modelId="fake.error-403", messages=talk))

    @scenario
    def bedrock_error_429(case):
        ask = client_of(case).invoke_model
        check_error(case, 429, "ThrottlingException", lambda: ask(modelId="fake.error-429", body=claude))

    @scenario
    def bedrock_retries_count_each(case):
        case.requests, case.outcomes = 2, ["error", "error"]
        try:
            client_of(case, attempts=2).converse(modelId="fake.error-500", messages=talk)
        except botocore.exceptions.ClientError:
            equal([entry["status"] for entry in case.entries()], [500, 500], "statuses at the provider")
            return
        raise failed("ClientError was not raised")

    @scenario
    def bedrock_exception_inside_a_stream(case):
        case.outcomes = ["error_midstream"]
        try:
            read_converse_stream(case, "fake.throttled-1")
        except botocore.exceptions.EventStreamError as error:
            equal(error.response["Error"]["Code"], "throttlingException", "code")
            return
        raise failed("EventStreamError was not raised")

    @scenario
    def bedrock_stream_cut_by_the_provider(case):
        case.outcomes = ["error_midstream"]
        try:
            read_converse_stream(case, "fake.cut-1")
        except urllib3.exceptions.HTTPError:
            # The event stream reads the connection below botocore's own errors.
            return
        raise failed("no error was raised: the client could not see the cut")
