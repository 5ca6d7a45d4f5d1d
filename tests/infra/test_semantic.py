"""Semantic answers on AWS: a vector index beside the answers, and layer and rights only where they are used."""

from __future__ import annotations

import json
from typing import Any

import pytest

from isochrone.stores.entries import DIMENSIONS
from tests.infra.conftest import BASE, Synthesis, Synthesise, function_of, resources

SWITCHES = {
    "for all": BASE + "\n[answers]\nsemantic = true\n",
    "for a model": BASE + '\n[[model]]\nname = "chat"\nanswers = { semantic = true }\n',
    "for a key": BASE.replace('tenant = "team-a"', 'tenant = "team-a"\nanswers = { semantic = true }'),
}


def actions_on(template: dict[str, Any], resource: str) -> list[str]:
    """What the edge function may do with the resource whose ARN ends so."""
    role = function_of(template, "edge")["Role"]["Fn::GetAtt"][0]
    return [
        action
        for policy in resources(template, "AWS::IAM::Policy")
        if {"Ref": role} in policy["Roles"]
        for statement in policy["PolicyDocument"]["Statement"]
        if resource in json.dumps(statement["Resource"])
        for action in [statement["Action"]]
    ]


def layers_of(template: dict[str, Any], function: str) -> str:
    return json.dumps(function_of(template, function)["Layers"])


def test_the_answers_table_has_the_index_that_the_store_searches(app: Synthesis) -> None:
    (answers,) = [t for t in resources(app.edge(), "AWS::DynamoDB::GlobalTable") if t["TableName"] == "iso-answers"]
    (index,) = answers["VectorIndexes"]
    assert (index["IndexName"], index["Dimensions"], index["DistanceFunction"]) == ("similar", DIMENSIONS, "COSINE")
    assert index["SearchSchema"] == [{"AttributeName": "scope", "SearchSchemaElementType": "HASH"}]
    assert answers["AttributeDefinitions"] == [
        {"AttributeName": "pk", "AttributeType": "S"},
        {"AttributeName": "scope", "AttributeType": "S"},
    ]


def test_no_other_table_has_an_index_of_vectors(app: Synthesis) -> None:
    tables = [t for template in app.templates.values() for t in resources(template, "AWS::DynamoDB::GlobalTable")]
    assert {table["TableName"] for table in tables if "VectorIndexes" in table} == {"iso-answers"}


@pytest.mark.parametrize("config", SWITCHES.values(), ids=SWITCHES)
def test_where_an_answer_may_be_semantic_the_edge_has_the_embedder_and_may_search(
    synthesise: Synthesise, config: str
) -> None:
    edge = synthesise(config).edge()
    assert "Semantic" in layers_of(edge, "edge")
    assert actions_on(edge, "table/iso-answers/index/similar") == ["dynamodb:SearchVectors"]


def test_where_none_is_the_edge_has_neither(app: Synthesis) -> None:
    assert "Semantic" not in layers_of(app.edge(), "edge")
    assert actions_on(app.edge(), "index/") == []


def test_the_prober_never_gets_the_embedder(synthesise: Synthesise) -> None:
    assert "Semantic" not in layers_of(synthesise(SWITCHES["for all"]).edge(), "prober")
