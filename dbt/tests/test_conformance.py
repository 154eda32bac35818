# dbt/tests/test_conformance.py
#     The suites with which dbt tests its adapters (dbt-tests-adapter), with every table turned into a stream table.
#
# A class of the suite is taken as it is.  Before it runs, and whenever it writes a file, `materialized: table` becomes `pgtrickle` in its
# project.  What cannot pass is in EXPECTED with the reason; such a test has to fail, else the reason is out of date.
import importlib
import re

import dbt.tests.util
import pytest

SUITES = {
    "basic.test_base": ["BaseSimpleMaterializations"],
    "basic.test_table_materialization": ["BaseTableMaterialization"],
    "basic.test_ephemeral": ["BaseEphemeral"],
    "basic.test_empty": ["BaseEmpty"],
    "basic.test_generic_tests": ["BaseGenericTests"],
    "basic.test_singular_tests": ["BaseSingularTests"],
    "basic.test_singular_tests_ephemeral": ["BaseSingularTestsEphemeral"],
    "basic.test_incremental": ["BaseIncremental", "BaseIncrementalNotSchemaChange", "BaseIncrementalBadStrategy"],
    "basic.test_docs_generate": ["BaseDocsGenerate", "BaseDocsGenReferences"],
    "basic.test_snapshot_check_cols": ["BaseSnapshotCheckCols"],
    "basic.test_snapshot_timestamp": ["BaseSnapshotTimestamp"],
    "relations.test_changing_relation_type": ["BaseChangeRelationTypeValidator"],
    "persist_docs.test_persist_docs": ["BasePersistDocs", "BasePersistDocsColumnMissing", "BasePersistDocsAllColumnsMissing",
                                       "BasePersistDocsQuotedColumnCaseSensitive", "BasePersistDocsQuotedDescriptionNotAppliedOnMismatch",
                                       "BasePersistDocsCommentOnQuotedColumn"],
    "grants.test_model_grants": ["BaseModelGrants"],
    "grants.test_invalid_grants": ["BaseInvalidGrants"],
    "grants.test_incremental_grants": ["BaseIncrementalGrants"],
    "grants.test_seed_grants": ["BaseSeedGrants"],
    "grants.test_snapshot_grants": ["BaseSnapshotGrants"],
    "concurrency.test_concurrency": ["BaseConcurrency"],
    "simple_copy.test_simple_copy": ["SimpleCopyBase", "EmptyModelsArentRunBase"],
    "empty.test_empty": ["BaseTestEmpty", "BaseTestEmptyInlineSourceRef", "BaseTestEmptySeedFlag", "MetadataWithEmptyFlag"],
    "dbt_show.test_dbt_show": ["BaseShowLimit", "BaseShowSqlHeader", "BaseShowDoesNotHandleDoubleLimit"],
    "ephemeral.test_ephemeral": ["BaseEphemeralMulti", "BaseEphemeralNested", "BaseEphemeralErrorHandling"],
    "aliases.test_aliases": ["BaseAliases", "BaseAliasErrors", "BaseSameAliasDifferentSchemas", "BaseSameAliasDifferentDatabases"],
    "caching.test_caching": ["BaseCachingLowercaseModel", "BaseCachingUppercaseModel", "BaseCachingSelectedSchemaOnly", "BaseNoPopulateCache"],
    "relations.test_dropping_schema_named": ["BaseDropSchemaNamed"],
    "column_types.test_column_types": ["BaseColumnTypes"],
    "query_comment.test_query_comment": ["BaseQueryComments", "BaseMacroQueryComments", "BaseEmptyQueryComments", "BaseNullQueryComments",
                                         "BaseMacroArgsQueryComments", "BaseMacroInvalidQueryComments"],
    "constraints.test_constraints": ["BaseTableConstraintsColumnsEqual", "BaseConstraintsRollback", "BaseTableContractSqlHeader",
                                     "BaseIncrementalConstraintsColumnsEqual", "BaseIncrementalConstraintsRollback", "BaseIncrementalContractSqlHeader"],
    "catalog.relation_types": ["CatalogRelationTypes"],
    "store_test_failures_tests.test_store_test_failures": ["BaseStoreTestFailures", "BaseStoreTestFailuresLimit"],
    "unit_testing.test_quoted_reserved_word_column_names": ["BaseUnitTestQuotedReservedWordColumnNames"],
    "sample_mode.test_sample_mode": ["BaseSampleModeTest"],
    "simple_seed.test_seed": ["BaseBasicSeedTests", "BaseSimpleSeedEnabledViaConfig", "BaseSeedConfigFullRefreshOn", "BaseSeedConfigFullRefreshOff",
                              "BaseSeedCustomSchema", "BaseSeedParsing", "BaseSeedWithUniqueDelimiter", "BaseSeedWithEmptyDelimiter",
                              "BaseSeedWithWrongDelimiter", "BaseTestEmptySeed"],
    "simple_seed.test_seed_type_override": ["BaseSimpleSeedColumnOverride"],
    "utils.test_source_freshness_custom_info": ["BaseCalculateFreshnessMethod"],
    "unit_testing.test_case_insensitivity": ["BaseUnitTestCaseInsensivity"],
    "unit_testing.test_invalid_input": ["BaseUnitTestInvalidInput"],
    "unit_testing.test_types": ["BaseUnitTestingTypes", "BaseUnitTestingVarcharFixtureNoTruncation"],
    "dbt_clone.test_dbt_clone": ["BaseClonePossible", "BaseCloneNotPossible", "BaseCloneSameTargetAndState"],
    "incremental.test_incremental_microbatch": ["BaseMicrobatch"],
    "incremental.test_incremental_on_schema_change": ["BaseIncrementalOnSchemaChange"],
    "incremental.test_incremental_predicates": ["BaseIncrementalPredicates"],
    "incremental.test_incremental_unique_id": ["BaseIncrementalUniqueKey"],
    "incremental.test_incremental_merge_exclude_columns": ["BaseMergeExcludeColumns"],
    "simple_snapshot.new_record_check_mode": ["BaseSnapshotNewRecordCheckMode"],
    "simple_snapshot.new_record_dbt_valid_to_current": ["BaseSnapshotNewRecordDbtValidToCurrent"],
    "simple_snapshot.new_record_timestamp_mode": ["BaseSnapshotNewRecordTimestampMode"],
    "simple_snapshot.test_ephemeral_snapshot_hard_deletes": ["BaseSnapshotEphemeralHardDeletes", "BaseSnapshotNewColumnSpecificCheckCols",
                                                             "BaseSnapshotNewColumnTimestampStrategy", "BaseSnapshotNewColumnWithDeletes"],
    "simple_snapshot.test_snapshot": ["BaseSimpleSnapshot", "BaseSnapshotCheck"],
    "simple_snapshot.test_various_configs": ["BaseSnapshotColumnNames", "BaseSnapshotColumnNamesFromDbtProject", "BaseSnapshotDbtValidToCurrent",
                                             "BaseSnapshotInvalidColumnNames", "BaseSnapshotMultiUniqueKey"],
    "store_test_failures_tests.basic": ["StoreTestFailuresAsInteractions", "StoreTestFailuresAsProjectLevelOff",
                                        "StoreTestFailuresAsProjectLevelView", "StoreTestFailuresAsGeneric",
                                        "StoreTestFailuresAsProjectLevelEphemeral", "StoreTestFailuresAsExceptions"],
}

EXPECTED = {
    "TestDocsGenReferences::test_references": "compares the statistics with an empty list, and a stream table has some (row A16)",
    "TestClonePossible::test_can_clone_true": "wants seeds and tables cloned as tables, which dbt-postgres does not do; a stream table is (row D31)",
    "TestMetadataWithEmptyFlag::test_run[alter_column_type]": "alters a column MY_VALUE, quoted, of a seed whose column is my_value",
    "TestMicrobatch::test_run_with_event_time": "inserts into its input model, which is a stream table here (rows E04 and E05)",
    "TestTestEmptyInlineSourceRef::test_run_with_empty": "a view, no stream table; dbt gives the subquery two aliases, which PostgreSQL refuses",
    "TestEphemeralMulti::test_ephemeral_multi": "compares SQL with a text that names the database dbt and the file test_ephemeral",
    "TestEphemeralNested::test_ephemeral_nested": "compares SQL with a text that names the database dbt and the file test_ephemeral",
    "TestTableContractSqlHeader::test__contract_sql_header": "sql_header is refused: the query is run again later, without it",
}


def names_the_materialization(base):
    """This suite says on the command line what its model is."""
    def _run_and_check_materialization(self, materialization, extra_args=None):
        base._run_and_check_materialization(self, "pgtrickle" if materialization == "table" else materialization, extra_args)

    return {"_run_and_check_materialization": _run_and_check_materialization}


CHANGED = {"BaseChangeRelationTypeValidator": names_the_materialization}

TABLE = re.compile(r"""(materialized['"]?\s*[=:]\s*)(['"]?)table\2""")


def as_stream_tables(text):
    return TABLE.sub(r"\1\2pgtrickle\2", text)


def wrap_write_file(module):
    if getattr(module, "write_file", None) is dbt.tests.util.write_file:
        module.write_file = lambda contents, *paths: dbt.tests.util.write_file(as_stream_tables(contents), *paths)


def wrap_get_manifest(module):
    """A suite that asks whether its model is a table is told so, if it is a stream table; a real table has slipped through."""
    def get_manifest(project_root):
        manifest = dbt.tests.util.get_manifest(project_root)
        for node in manifest.nodes.values() if manifest is not None else ():
            assert node.config.materialized != "table", "%s is a table still" % node.unique_id
            if node.config.materialized == "pgtrickle":
                node.config.materialized = "table"
        return manifest

    if getattr(module, "get_manifest", None) is dbt.tests.util.get_manifest:
        module.get_manifest = get_manifest


for module_name, class_names in SUITES.items():
    module = importlib.import_module("dbt.tests.adapter." + module_name)
    wrap_write_file(module)
    wrap_get_manifest(module)
    for class_name in class_names:
        base = getattr(module, class_name)
        globals()["Test" + re.sub("^Base", "", class_name)] = type("Test" + re.sub("^Base", "", class_name), (base,), CHANGED.get(class_name, lambda base: {})(base))


@pytest.fixture(scope="class", autouse=True)
def tables_become_stream_tables(project, installed_package):
    import os

    for folder, _, names in os.walk(project.project_root):
        for name in names:
            path = os.path.join(folder, name)
            if name.endswith((".sql", ".yml", ".yaml")) and "dbt_packages" not in path:
                with open(path) as file:
                    text = file.read()
                if as_stream_tables(text) != text:
                    with open(path, "w") as file:
                        file.write(as_stream_tables(text))
    yield
    # what the last command knew: whatever a suite has written meanwhile, nothing is a table, except where the adapter itself knows only tables
    manifest = dbt.tests.util.get_manifest(project.project_root)
    assert [node.unique_id for node in (manifest.nodes.values() if manifest is not None else ())
            if node.resource_type == "model" and node.config.materialized == "table"] == []


@pytest.fixture(autouse=True)
def expected_to_fail(request):
    reason = EXPECTED.get("%s::%s" % (request.node.cls.__name__, request.node.name))
    if reason:
        request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))
